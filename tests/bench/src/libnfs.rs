//! libnfs, loaded at run time, so that building needs no C library: a client of our own choosing would prove little.
//!
//! A [`Client`] is one mount over one connection. Its calls are futures, driven by [`Client::run`] on this thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Without an answer for so long a row is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

type Nfs = *mut c_void;
type Handle = *mut c_void;
type Callback = extern "C" fn(c_int, Nfs, *mut c_void, *mut c_void);

/// The entry points used here, as in nfsc/libnfs.h of 4.0 (Debian 12) and 5.0 (Debian 13).
#[derive(Clone, Copy)]
struct Api {
    init_context: unsafe extern "C" fn() -> Nfs,
    destroy_context: unsafe extern "C" fn(Nfs),
    parse_url_dir: unsafe extern "C" fn(Nfs, *const c_char) -> *mut Url,
    destroy_url: unsafe extern "C" fn(*mut Url),
    get_error: unsafe extern "C" fn(Nfs) -> *const c_char,
    set_uid: unsafe extern "C" fn(Nfs, c_int),
    set_gid: unsafe extern "C" fn(Nfs, c_int),
    mount: unsafe extern "C" fn(Nfs, *const c_char, *const c_char) -> c_int,
    get_fd: unsafe extern "C" fn(Nfs) -> c_int,
    which_events: unsafe extern "C" fn(Nfs) -> c_int,
    service: unsafe extern "C" fn(Nfs, c_int) -> c_int,
    open2: unsafe extern "C" fn(Nfs, *const c_char, c_int, c_int, Callback, *mut c_void) -> c_int,
    creat: unsafe extern "C" fn(Nfs, *const c_char, c_int, Callback, *mut c_void) -> c_int,
    mkdir: unsafe extern "C" fn(Nfs, *const c_char, Callback, *mut c_void) -> c_int,
    stat64: unsafe extern "C" fn(Nfs, *const c_char, Callback, *mut c_void) -> c_int,
    unlink: unsafe extern "C" fn(Nfs, *const c_char, Callback, *mut c_void) -> c_int,
    pread: unsafe extern "C" fn(Nfs, Handle, u64, u64, Callback, *mut c_void) -> c_int,
    pwrite: unsafe extern "C" fn(Nfs, Handle, u64, u64, *const c_void, Callback, *mut c_void) -> c_int,
    fsync: unsafe extern "C" fn(Nfs, Handle, Callback, *mut c_void) -> c_int,
    close: unsafe extern "C" fn(Nfs, Handle, Callback, *mut c_void) -> c_int,
}

#[repr(C)]
struct Url {
    server: *const c_char,
    path: *const c_char,
    file: *const c_char,
}

/// The loaded library; it stays loaded.
#[derive(Clone, Copy)]
pub(crate) struct Library(Api);

impl Library {
    /// The error says which package is missing.
    pub(crate) fn load() -> Result<Library, String> {
        // The arguments of pread and pwrite changed places with 16 (libnfs 6): that one is not tried.
        let names = [c"libnfs.so.13", c"libnfs.so.14"];
        // SAFETY: plain calls with strings that live as long as the program.
        let library = names.iter().map(|name| unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) });
        let Some(library) = library.into_iter().find(|l| !l.is_null()) else {
            return Err("libnfs is not installed (apt-get install libnfs13, or libnfs14)".into());
        };
        macro_rules! entry {
            ($name:literal) => {{
                // SAFETY: the library is loaded, the name ends with a NUL.
                let address = unsafe { libc::dlsym(library, concat!($name, "\0").as_ptr().cast()) };
                if address.is_null() {
                    return Err(concat!("libnfs has no ", $name).into());
                }
                // SAFETY: the header gives the function of this name the type that the field has, and pointers to data and
                // to functions have the same size here.
                unsafe { std::mem::transmute_copy(&address) }
            }};
        }
        Ok(Library(Api {
            init_context: entry!("nfs_init_context"),
            destroy_context: entry!("nfs_destroy_context"),
            parse_url_dir: entry!("nfs_parse_url_dir"),
            destroy_url: entry!("nfs_destroy_url"),
            get_error: entry!("nfs_get_error"),
            set_uid: entry!("nfs_set_uid"),
            set_gid: entry!("nfs_set_gid"),
            mount: entry!("nfs_mount"),
            get_fd: entry!("nfs_get_fd"),
            which_events: entry!("nfs_which_events"),
            service: entry!("nfs_service"),
            open2: entry!("nfs_open2_async"),
            creat: entry!("nfs_creat_async"),
            mkdir: entry!("nfs_mkdir_async"),
            stat64: entry!("nfs_stat64_async"),
            unlink: entry!("nfs_unlink_async"),
            pread: entry!("nfs_pread_async"),
            pwrite: entry!("nfs_pwrite_async"),
            fsync: entry!("nfs_fsync_async"),
            close: entry!("nfs_close_async"),
        }))
    }
}

/// A mounted export.
pub(crate) struct Client {
    api: Api,
    nfs: Nfs,
}

/// One of the calls that go on side by side.
pub(crate) type Lane<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// An open file. Closed by [`Client::close`] only; the server has no state of it in version 3.
#[derive(Clone, Copy)]
pub(crate) struct OpenFile(Handle);

thread_local! {
    /// Which lane is being polled: whose a new call is.
    static LANE: Cell<usize> = const { Cell::new(0) };
    /// Lanes whose call was answered.
    static READY: RefCell<VecDeque<usize>> = const { RefCell::new(VecDeque::new()) };
}

/// Where the answer to a call lands.
#[derive(Default)]
struct Slot {
    lane: usize,
    answer: Cell<Option<Answer>>,
}

#[derive(Clone, Copy)]
struct Answer {
    status: c_int,
    data: *mut c_void,
}

extern "C" fn answered(status: c_int, _nfs: Nfs, data: *mut c_void, private: *mut c_void) {
    // SAFETY: `Client::call` made it from an Rc of that type, and libnfs calls back exactly once per call.
    let slot = unsafe { Rc::from_raw(private.cast_const().cast::<Slot>()) };
    slot.answer.set(Some(Answer { status, data }));
    READY.with_borrow_mut(|ready| ready.push_back(slot.lane));
}

impl Client {
    pub(crate) fn mount(
        library: Library,
        port: u16,
        mount_port: u16,
        export: &str,
    ) -> Result<Client, String> {
        let api = library.0;
        // SAFETY: takes nothing.
        let nfs = unsafe { (api.init_context)() };
        if nfs.is_null() {
            return Err("libnfs: no memory".into());
        }
        let client = Client { api, nfs };
        let url = format!("nfs://127.0.0.1{export}?version=3&nfsport={port}&mountport={mount_port}");
        let text = CString::new(url.clone()).map_err(|e| e.to_string())?;
        // SAFETY: the context is valid until the client is dropped, the string until the end of the call.
        let parsed = unsafe { (api.parse_url_dir)(nfs, text.as_ptr()) };
        if parsed.is_null() {
            return Err(format!("libnfs does not read {url}: {}", client.error()));
        }
        // SAFETY: `parsed` is valid until it is destroyed here, once.
        let status = unsafe {
            // Whoever runs this: the exports belong to root.
            (api.set_uid)(nfs, 0);
            (api.set_gid)(nfs, 0);
            let status = (api.mount)(nfs, (*parsed).server, (*parsed).path);
            (api.destroy_url)(parsed);
            status
        };
        if status != 0 { Err(format!("mount {url}: {}", client.error())) } else { Ok(client) }
    }

    fn error(&self) -> String {
        // SAFETY: the context is valid; the text is its own, and copied before the next call.
        let text = unsafe { (self.api.get_error)(self.nfs) };
        if text.is_null() {
            return "no reason given".into();
        }
        // SAFETY: a C string, as the header says.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// Polls all lanes until each has ended; the first error ends all.
    pub(crate) fn run<'a>(&self, lanes: Vec<Lane<'a>>) -> Result<(), String> {
        let mut lanes: Vec<_> = lanes.into_iter().map(Some).collect();
        let mut left = lanes.len();
        READY.with_borrow_mut(|ready| {
            ready.clear();
            ready.extend(0..lanes.len());
        });
        let mut cx = Context::from_waker(Waker::noop());
        let mut last_answer = Instant::now();
        while left > 0 {
            while let Some(number) = READY.with_borrow_mut(VecDeque::pop_front) {
                last_answer = Instant::now();
                let Some(lane) = lanes.get_mut(number) else { continue };
                LANE.set(number);
                let polled = lane.as_mut().map(|l| l.as_mut().poll(&mut cx));
                if let Some(Poll::Ready(result)) = polled {
                    *lane = None;
                    left -= 1;
                    result?;
                }
            }
            if left > 0 {
                self.wait()?;
                if last_answer.elapsed() > SILENCE_LIMIT {
                    return Err(format!("no answer for {SILENCE_LIMIT:?}"));
                }
            }
        }
        Ok(())
    }

    /// Runs one lane alone.
    pub(crate) fn run_one(&self, lane: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        self.run(vec![Box::pin(lane)])
    }

    fn wait(&self) -> Result<(), String> {
        // SAFETY: the context is valid.
        let (fd, events) = unsafe { ((self.api.get_fd)(self.nfs), (self.api.which_events)(self.nfs)) };
        let mut poll = libc::pollfd { fd, events: events as i16, revents: 0 };
        // SAFETY: one entry, ours.
        if unsafe { libc::poll(&raw mut poll, 1, 1000) } < 0 {
            return Err(std::io::Error::last_os_error().to_string());
        }
        // SAFETY: the context is valid; callbacks reach `answered` only.
        if unsafe { (self.api.service)(self.nfs, c_int::from(poll.revents)) } < 0 {
            return Err(format!("the connection is gone: {}", self.error()));
        }
        Ok(())
    }

    /// Starts a call, handing `start` what it passes to libnfs, and waits for its answer.
    async fn call(
        &self,
        what: &str,
        start: impl FnOnce(Callback, *mut c_void) -> c_int,
    ) -> Result<Answer, String> {
        let slot = Rc::new(Slot { lane: LANE.get(), answer: Cell::new(None) });
        let private = Rc::into_raw(slot.clone()).cast_mut().cast();
        if start(answered, private) != 0 {
            // SAFETY: the call was not accepted, so there will be no callback that takes it.
            drop(unsafe { Rc::from_raw(private.cast_const().cast::<Slot>()) });
            return Err(format!("{what}: {}", self.error()));
        }
        let answer = std::future::poll_fn(|_| slot.answer.take().map_or(Poll::Pending, Poll::Ready)).await;
        if answer.status < 0 {
            let error = std::io::Error::from_raw_os_error(-answer.status);
            return Err(format!("{what}: {error} ({})", self.error()));
        }
        Ok(answer)
    }

    pub(crate) async fn create(&self, path: &CStr) -> Result<OpenFile, String> {
        // SAFETY: the context and the handle are valid; libnfs copies paths and data before it returns.
        self.call("create", |cb, p| unsafe { (self.api.creat)(self.nfs, path.as_ptr(), 0o644, cb, p) })
            .await
            .map(|a| OpenFile(a.data))
    }

    pub(crate) async fn open(&self, path: &CStr, flags: c_int) -> Result<OpenFile, String> {
        // SAFETY: as in `create`.
        self.call("open", |cb, p| unsafe { (self.api.open2)(self.nfs, path.as_ptr(), flags, 0o644, cb, p) })
            .await
            .map(|a| OpenFile(a.data))
    }

    pub(crate) async fn mkdir(&self, path: &CStr) -> Result<(), String> {
        // SAFETY: as in `create`.
        self.call("mkdir", |cb, p| unsafe { (self.api.mkdir)(self.nfs, path.as_ptr(), cb, p) })
            .await
            .map(drop)
    }

    pub(crate) async fn stat(&self, path: &CStr) -> Result<(), String> {
        // SAFETY: as in `create`.
        self.call("stat", |cb, p| unsafe { (self.api.stat64)(self.nfs, path.as_ptr(), cb, p) })
            .await
            .map(drop)
    }

    pub(crate) async fn unlink(&self, path: &CStr) -> Result<(), String> {
        // SAFETY: as in `create`.
        self.call("unlink", |cb, p| unsafe { (self.api.unlink)(self.nfs, path.as_ptr(), cb, p) })
            .await
            .map(drop)
    }

    /// Bytes read.
    pub(crate) async fn read(&self, file: OpenFile, offset: u64, len: usize) -> Result<usize, String> {
        // SAFETY: as in `create`.
        self.call("read", |cb, p| unsafe { (self.api.pread)(self.nfs, file.0, offset, len as u64, cb, p) })
            .await
            .map(|a| a.status as usize)
    }

    pub(crate) async fn write(&self, file: OpenFile, offset: u64, data: &[u8]) -> Result<(), String> {
        // SAFETY: as in `create`.
        let answer = self
            .call("write", |cb, p| unsafe {
                (self.api.pwrite)(self.nfs, file.0, offset, data.len() as u64, data.as_ptr().cast(), cb, p)
            })
            .await?;
        if answer.status as usize == data.len() {
            Ok(())
        } else {
            Err(format!("write: {} of {} bytes", answer.status, data.len()))
        }
    }

    pub(crate) async fn fsync(&self, file: OpenFile) -> Result<(), String> {
        // SAFETY: as in `create`.
        self.call("fsync", |cb, p| unsafe { (self.api.fsync)(self.nfs, file.0, cb, p) }).await.map(drop)
    }

    /// Ends the handle.
    pub(crate) async fn close(&self, file: OpenFile) -> Result<(), String> {
        // SAFETY: as in `create`; nobody uses the handle afterwards.
        self.call("close", |cb, p| unsafe { (self.api.close)(self.nfs, file.0, cb, p) }).await.map(drop)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the context is valid and not used again; calls under way are answered (cancelled) in here.
        unsafe { (self.api.destroy_context)(self.nfs) };
    }
}
