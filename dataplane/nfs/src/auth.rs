//! Who calls: AUTH_NONE and AUTH_SYS (RFC 5531, appendix A), and what an export's squash rule makes of it.

use crate::xdr::{Malformed, Reader, Writer, XdrResult};
use basalt_shard::vfs::Credentials;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// AUTH_SYS carries at most this many supplementary groups.
const GROUPS_MAX: usize = 16;
const MACHINE_NAME_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    None,
    Sys { machine: Bytes, uid: u32, gid: u32, groups: Vec<u32> },
}

/// The part of a caller's identity that owns client ids (RFC 8881, section 2.10.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal {
    pub flavor: u32,
    pub uid: u32,
}

/// Which users an export maps to the anonymous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Squash {
    None,
    #[default]
    Root,
    All,
}

impl Auth {
    pub fn parse_sys(body: Bytes) -> XdrResult<Auth> {
        let mut r = Reader::new(body);
        let auth = Auth::parse_sys_inline(&mut r)?;
        if r.remaining() == 0 { Ok(auth) } else { Err(Malformed) }
    }

    /// authsys_parms without the length of an opaque_auth around it, as in callback_sec_parms4.
    pub(crate) fn parse_sys_inline(r: &mut Reader) -> XdrResult<Auth> {
        let _stamp = r.u32()?;
        let machine = r.opaque(MACHINE_NAME_MAX)?;
        let (uid, gid) = (r.u32()?, r.u32()?);
        let n = r.count(GROUPS_MAX)?;
        let mut groups = Vec::with_capacity(n);
        for _ in 0..n {
            groups.push(r.u32()?);
        }
        Ok(Auth::Sys { machine, uid, gid, groups })
    }

    /// As an opaque_auth.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Auth::None => {
                w.u32(0);
                w.u32(0);
            }
            Auth::Sys { machine, uid, gid, groups } => {
                let mut b = Writer::new();
                b.u32(0);
                b.opaque(machine);
                b.u32(*uid);
                b.u32(*gid);
                b.u32(groups.len() as u32);
                for g in groups {
                    b.u32(*g);
                }
                w.u32(1);
                w.opaque(&b.finish_contiguous());
            }
        }
    }

    pub fn root() -> Auth {
        Auth::Sys { machine: Bytes::from_static(b"basalt"), uid: 0, gid: 0, groups: Vec::new() }
    }

    pub fn principal(&self) -> Principal {
        match self {
            Auth::None => Principal { flavor: 0, uid: u32::MAX },
            Auth::Sys { uid, .. } => Principal { flavor: 1, uid: *uid },
        }
    }

    /// The credentials that the file system sees.
    pub fn credentials(&self, squash: Squash, anon_uid: u32, anon_gid: u32) -> Credentials {
        match (self, squash) {
            (Auth::None, _) | (_, Squash::All) => {
                Credentials { uid: anon_uid, gid: anon_gid, groups: Vec::new() }
            }
            (Auth::Sys { uid, gid, groups, .. }, Squash::None) => {
                Credentials { uid: *uid, gid: *gid, groups: groups.clone() }
            }
            (Auth::Sys { uid, gid, groups, .. }, Squash::Root) => {
                let map_gid = |g: u32| if g == 0 { anon_gid } else { g };
                Credentials {
                    uid: if *uid == 0 { anon_uid } else { *uid },
                    gid: map_gid(*gid),
                    groups: groups.iter().map(|g| map_gid(*g)).collect(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squash_rules() {
        let root = Auth::Sys { machine: Bytes::new(), uid: 0, gid: 0, groups: vec![0, 5] };
        let user = Auth::Sys { machine: Bytes::new(), uid: 7, gid: 0, groups: vec![3] };
        assert_eq!(root.credentials(Squash::None, 65534, 65534).uid, 0);
        let c = root.credentials(Squash::Root, 65534, 65533);
        assert_eq!((c.uid, c.gid, c.groups), (65534, 65533, vec![65533, 5]));
        let c = user.credentials(Squash::Root, 65534, 65533);
        assert_eq!((c.uid, c.gid), (7, 65533));
        assert_eq!(user.credentials(Squash::All, 65534, 65533).uid, 65534);
        assert_eq!(Auth::None.credentials(Squash::None, 65534, 65533).uid, 65534);
    }

    #[test]
    fn seventeen_groups_are_refused() {
        let mut w = Writer::new();
        Auth::Sys { machine: Bytes::new(), uid: 1, gid: 1, groups: (0..17).collect() }.encode(&mut w);
        let body = w.finish_contiguous().slice(8..);
        assert_eq!(Auth::parse_sys(body), Err(Malformed));
    }
}
