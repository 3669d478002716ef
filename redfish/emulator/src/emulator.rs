//! Starting, steering and looking into an emulated BMC.

use crate::certificate::Certificate;
use crate::deviation::Deviation;
use crate::fault::{Fault, Planned};
use crate::serve;
use crate::state::{Boot, Seen, State};
use crate::tree::{Tree, normal};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// A certificate for 127.0.0.1 by a CA of its own.
    On,
    /// The same, with dates long past.
    Expired,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub tls: Tls,
    pub user: String,
    pub password: String,
    pub deviations: BTreeSet<Deviation>,
    /// Members on one page of a collection.
    pub page_members: Option<usize>,
    /// How long the server takes to turn on or off.
    pub power_takes: Duration,
    /// How long a task takes.
    pub task_takes: Duration,
    /// How long the BMC is gone when it restarts.
    pub restart_takes: Duration,
    pub max_sessions: usize,
    /// Wrong passwords after which the account is locked.
    pub lock_after: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: Tls::Off,
            user: "root".to_owned(),
            password: "calvin-and-hobbes".to_owned(),
            deviations: BTreeSet::new(),
            page_members: None,
            power_takes: Duration::ZERO,
            task_takes: Duration::from_millis(50),
            restart_takes: Duration::from_millis(200),
            max_sessions: 8,
            lock_after: usize::MAX,
        }
    }
}

/// A BMC on 127.0.0.1, until it is dropped.
pub struct Emulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) certificate: Mutex<Option<Certificate>>,
    pub(crate) faults: Mutex<Vec<Planned>>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Emulator {
    /// Plain HTTP, no deviations.
    pub async fn start(tree: impl Into<Arc<Tree>>) -> Self {
        Self::start_with(tree, Options::default()).await
    }

    pub async fn start_with(tree: impl Into<Arc<Tree>>, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        Self::start_on(listener, tree, options)
    }

    /// On a socket that is already listening.
    pub fn start_on(listener: TcpListener, tree: impl Into<Arc<Tree>>, options: Options) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let certificate = match options.tls {
            Tls::Off => None,
            Tls::On => Some(Certificate::issue(false)),
            Tls::Expired => Some(Certificate::issue(true)),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(tree.into(), options)),
            certificate: Mutex::new(certificate),
            faults: Mutex::default(),
        });
        let accepting = tokio::spawn(serve::accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next request whose `METHOD /path?query` contains `when`.
    pub fn fault(&self, when: &str, fault: Fault) {
        self.faults(when, fault, 1);
    }

    /// The next `times` of them.
    pub fn faults(&self, when: &str, fault: Fault, times: usize) {
        let planned = Planned { when: when.to_owned(), fault, times };
        self.shared.faults.lock().unwrap_or_else(|p| p.into_inner()).push(planned);
    }

    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap_or_else(|p| p.into_inner()).clear();
    }

    /// The resource as it is now.
    pub fn resource(&self, path: &str) -> Option<Value> {
        self.shared.state().resource(normal(path)).cloned()
    }

    /// Changes a resource from inside.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.shared.state();
        if let Some(resource) = state.resource_mut(normal(path)) {
            change(resource);
        }
    }

    pub fn remove(&self, path: &str) {
        self.shared.state().remove(normal(path));
    }

    pub fn set_deviations(&self, deviations: impl IntoIterator<Item = Deviation>) {
        self.shared.state().options.deviations = deviations.into_iter().collect();
    }

    /// What was asked, faults included; the last ten thousand.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.iter().cloned().collect()
    }

    /// Boots of the server since it was started here.
    pub fn boots(&self) -> Vec<Boot> {
        self.shared.state().boots.clone()
    }

    /// As if the operating system had booted or not: what `BootProgress` says.
    pub fn set_boot_progress(&self, system: &str, state: &str) {
        self.change(system, |system| system["BootProgress"]["LastState"] = state.into());
    }

    pub fn open_sessions(&self) -> usize {
        self.shared.state().sessions.len()
    }

    /// All tokens are worthless from now on.
    pub fn expire_sessions(&self) {
        self.shared.state().end_sessions();
    }

    /// The account answers as locked.
    pub fn lock_account(&self) {
        self.shared.state().locked = true;
    }

    /// How many connections there were at the same time at most; event streams are not counted.
    pub fn most_connections(&self) -> usize {
        self.shared.state().connections.most
    }

    /// Requests answered.
    pub fn requests(&self) -> usize {
        self.shared.state().requests
    }

    /// New connections see another certificate, by another CA.
    pub fn change_certificate(&self) {
        *self.shared.certificate.lock().unwrap_or_else(|p| p.into_inner()) = Some(Certificate::issue(false));
    }

    /// The certificate in DER, where there is TLS.
    pub fn certificate_der(&self) -> Option<Vec<u8>> {
        self.shared.certificate.lock().unwrap_or_else(|p| p.into_inner()).as_ref().map(|c| c.der.clone())
    }

    pub fn ca_pem(&self) -> Option<String> {
        self.shared.certificate.lock().unwrap_or_else(|p| p.into_inner()).as_ref().map(|c| c.ca_pem.clone())
    }

    /// Sends an event to every event stream.
    pub fn emit(&self, message: &str, severity: &str) {
        self.shared.state().emit("Alert", message, severity, None);
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.state().stop();
    }
}
