//! READDIR and READDIRPLUS, which list `.` and `..` too: the file system's cookies start after theirs.

use super::Request;
use super::types::{self, OpResult, Status};
use crate::v4::compound::Object;
use crate::xdr::{Reader, Writer};
use basalt_shard::vfs::*;
use bytes::Bytes;

const COOKIE_DOT: u64 = 1;
const COOKIE_DOT_DOT: u64 = 2;
const BATCH_MAX: usize = 512;
/// Directory attributes, cookieverf, end of list and eof, RPC status.
const OVERHEAD_BYTES: usize = 4 + 88 + 8 + 8;

/// The limits of a listing and what has been listed.
struct List {
    entries: Writer,
    /// READDIRPLUS's dircount limits names and cookies alone.
    names_left: usize,
    room: usize,
    plus: bool,
    any: bool,
}

impl Request<'_> {
    pub(super) async fn readdir(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.object(r)?;
        let cookie = r.u64()?;
        let verifier: [u8; 8] = r.fixed()?;
        let count = r.u32()? as usize;
        self.list(&dir, cookie, verifier, usize::MAX, count, false, w).await
    }

    pub(super) async fn readdirplus(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.object(r)?;
        let cookie = r.u64()?;
        let verifier: [u8; 8] = r.fixed()?;
        let (dircount, maxcount) = (r.u32()? as usize, r.u32()? as usize);
        self.list(&dir, cookie, verifier, dircount, maxcount, true, w).await
    }

    #[allow(clippy::too_many_arguments)]
    async fn list(
        &self,
        dir: &Object,
        from: u64,
        verifier: [u8; 8],
        dircount: usize,
        maxcount: usize,
        plus: bool,
        w: &mut Writer,
    ) -> OpResult {
        // Cookies hold for ever, so the verifier is always 0.
        if verifier != [0; 8] {
            return Err(Status::BAD_COOKIE.into());
        }
        let room = maxcount.min(crate::rpc::IO_MAX_BYTES as usize).saturating_sub(OVERHEAD_BYTES);
        let mut list = List { entries: Writer::new(), names_left: dircount, room, plus, any: false };
        let (eof, attr) = self.fill(dir, from, &mut list).await?;
        if !list.any && !eof {
            return Err(Status::TOOSMALL.into());
        }
        types::post_op(w, &dir.export, &attr);
        w.u64(0);
        w.append(list.entries);
        w.bool(false);
        w.bool(eof);
        Ok(())
    }

    async fn fill(&self, dir: &Object, from: u64, list: &mut List) -> OpResult<(bool, Attr)> {
        let cx = self.context(&dir.export);
        let mut cookie = if from <= COOKIE_DOT_DOT { 0 } else { from };
        let mut first = from < COOKIE_DOT_DOT;
        loop {
            let guess = (list.room - list.entries.len().min(list.room)) / if list.plus { 200 } else { 40 };
            let batch = guess.clamp(8, BATCH_MAX);
            let page = dir.vfs().readdir(&cx, dir.ino, cookie, batch, list.plus).await?;
            if std::mem::take(&mut first) {
                let dot_entry = |name: &'static [u8], cookie, a: &Attr| DirEntry {
                    name: Bytes::from_static(name),
                    ino: a.ino,
                    kind: FileType::Directory,
                    cookie,
                    attr: Some(a.clone()),
                };
                if from < COOKIE_DOT && !self.push(dir, list, &dot_entry(b".", COOKIE_DOT, &page.dir)) {
                    return Ok((false, page.dir));
                }
                let parent = dir.vfs().lookup_parent(&cx, dir.ino).await?;
                if !self.push(dir, list, &dot_entry(b"..", COOKIE_DOT_DOT, &parent)) {
                    return Ok((false, page.dir));
                }
            }
            for e in &page.entries {
                if !self.push(dir, list, e) {
                    return Ok((false, page.dir));
                }
                cookie = e.cookie;
            }
            if page.eof || page.entries.is_empty() {
                return Ok((true, page.dir));
            }
        }
    }

    /// False, and nothing added, when it does not fit.
    fn push(&self, dir: &Object, list: &mut List, e: &DirEntry) -> bool {
        let at = list.entries.len();
        let w = &mut list.entries;
        w.bool(true);
        w.u64(e.ino.0);
        w.opaque(&e.name);
        w.u64(e.cookie);
        let name_bytes = w.len() - at;
        if list.plus {
            match &e.attr {
                Some(a) => {
                    types::post_op(w, &dir.export, a);
                    w.bool(true);
                    w.opaque(&self.handle(&dir.export, a));
                }
                None => {
                    w.bool(false);
                    w.bool(false);
                }
            }
        }
        // dircount is a hint; one entry always goes.
        if w.len() > list.room || (name_bytes > list.names_left && list.any) {
            w.truncate(at);
            return false;
        }
        list.names_left = list.names_left.saturating_sub(name_bytes);
        list.any = true;
        true
    }
}
