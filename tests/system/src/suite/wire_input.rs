//! What no proper client sends: broken RPC, forged and stale handles. The server must answer or hang up, and go on.

use std::io;
use std::time::Duration;

use super::{Fixture, Verdict};
use crate::rng::Rng;
use crate::server::Server;
use crate::wire::{Client, MOUNT_PROGRAM, NFS_PROGRAM, NFS3ERR_BADHANDLE, NFS3ERR_STALE, Reply, Xdr};

fn connect(server: &dyn Server) -> Result<Client, String> {
    Client::connect(server.port()).map_err(|e| format!("connect: {e}"))
}

/// The server still serves: NULL, and the export's root through MOUNT.
fn alive(server: &mut dyn Server, after: &str) -> Result<(), String> {
    let check = || -> io::Result<()> {
        let reply = Client::connect(server.port())?.call(NFS_PROGRAM, 3, 0, &Xdr::default())?;
        if reply != Reply::Success(Vec::new()) {
            return Err(io::Error::other(format!("{reply:?}")));
        }
        Client::connect(server.mount_port())?
            .mount(&server.export())?
            .map_err(|s| io::Error::other(format!("MNT: {s}")))?;
        Ok(())
    };
    check().map_err(|e| format!("after {after} it serves no more: {e}"))?;
    if server.as_basalt().is_some_and(|b| !b.is_alive()) {
        return Err(format!("after {after} the process is gone"));
    }
    Ok(())
}

/// A message for which the only bad answer is none at all from a dead server.
fn poke(
    server: &mut dyn Server,
    what: &str,
    send: impl FnOnce(&mut Client) -> io::Result<()>,
) -> Result<(), String> {
    let mut client = connect(server)?;
    // The server may hang up in the middle of it.
    let _ = send(&mut client);
    drop(client);
    alive(server, what)
}

fn expect_reply(what: &str, got: io::Result<Reply>, expected: &Reply) -> Result<(), String> {
    match got {
        Ok(reply) if reply == *expected => Ok(()),
        other => Err(format!("{what}: {other:?}, not {expected:?}")),
    }
}

pub(super) fn malformed(fixture: &mut Fixture) -> Verdict {
    let strict = fixture.server()?.as_basalt().is_some();
    let server = fixture.server()?;
    let none = Xdr::default();
    let mut client = connect(server)?;
    expect_reply("an unknown program", client.call(200_999, 1, 0, &none), &Reply::Refused(1))?;
    expect_reply("NFS version 2", connect(server)?.call(NFS_PROGRAM, 2, 0, &none), &Reply::Refused(2))?;
    expect_reply("procedure 999", connect(server)?.call(NFS_PROGRAM, 3, 999, &none), &Reply::Refused(3))?;
    if strict {
        expect_reply(
            "GETATTR without a handle",
            connect(server)?.call(NFS_PROGRAM, 3, 1, &none),
            &Reply::Refused(4),
        )?;
        let path = Xdr::default().opaque(&[b'x'; 5000]);
        let mount =
            Client::connect(server.mount_port()).map_err(|e| e.to_string())?.call(MOUNT_PROGRAM, 3, 1, &path);
        if !matches!(mount, Ok(Reply::Refused(4) | Reply::Success(_))) {
            return Err(format!("MNT of a path of 5000 bytes: {mount:?}"));
        }
    }
    poke(server, "RPC version 9", |c| {
        c.send_record(
            &none.clone().u32(1).u32(0).u32(9).u32(NFS_PROGRAM).u32(3).u32(0).u32(0).u32(0).u32(0).u32(0).0,
        )?;
        c.receive_record().map(drop)
    })?;
    poke(server, "an empty record", |c| c.send_record(&[]))?;
    poke(server, "a record of 2 GiB", |c| c.send_raw(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]))?;
    poke(server, "half a record mark", |c| c.send_raw(&[0x80, 0]))?;
    poke(server, "half a record", |c| c.send_raw(&[0x80, 0, 1, 0, 0, 0, 0, 1]))?;
    poke(server, "a thousand empty fragments", |c| c.send_raw(&[0; 4000]))?;
    poke(server, "HTTP", |c| c.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
    poke(server, "a reply", |c| c.send_record(&none.clone().u32(1).u32(1).u32(0).u32(0).u32(0).u32(0).0))?;
    poke(server, "a credential of 64 KiB", |c| {
        let message = none
            .clone()
            .u32(1)
            .u32(0)
            .u32(2)
            .u32(NFS_PROGRAM)
            .u32(3)
            .u32(1)
            .u32(1)
            .opaque(&[0; 65_536])
            .u32(0)
            .u32(0);
        c.send_record(&message.0)
    })?;
    poke(server, "a COMPOUND of four billion operations", |c| {
        let mut message = c.header(NFS_PROGRAM, 4, 1).opaque(b"").u32(1).u32(u32::MAX);
        message.0.extend([0xff; 64]);
        c.send_record(&message.0)
    })?;
    poke(server, "a WRITE that lies about its length", |c| {
        let message =
            c.header(NFS_PROGRAM, 3, 7).opaque(&[1; 32]).u64(u64::MAX).u32(u32::MAX).u32(2).u32(u32::MAX);
        c.send_record(&message.0)
    })?;
    fuzz(server)?;
    // A connection with a call in the air may close; and many idle ones may be open at once.
    let idle: Vec<_> = (0..100).map(|_| Client::connect(server.port())).collect();
    alive(server, "100 idle connections")?;
    drop(idle);
    alive(server, "all of it")?;
    Ok(String::new())
}

/// Random bytes, and well-formed headers with random bodies, for some thousand messages.
fn fuzz(server: &mut dyn Server) -> Result<(), String> {
    let mut rng = Rng::new(77);
    for round in 0..60 {
        let mut client = connect(server)?;
        for _ in 0..40 {
            let version = if rng.one_in(2) { 3 } else { 4 };
            let procedure = rng.below(if version == 3 { 24 } else { 3 }) as u32;
            let program = if rng.one_in(6) { MOUNT_PROGRAM } else { NFS_PROGRAM };
            let mut message =
                if rng.one_in(8) { Xdr::default() } else { client.header(program, version, procedure) };
            let len = rng.below(300) as usize & !3;
            let mut body = rng.bytes(len);
            // Small numbers lead deeper into a decoder than large ones.
            for word in body.chunks_mut(4) {
                if !rng.one_in(4) {
                    word[..3].fill(0);
                    word[3] &= 0x3f;
                }
            }
            message.0.extend(body);
            if client.send_record(&message.0).is_err() {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
        drop(client);
        if round % 10 == 9 {
            alive(server, "random messages")?;
        }
    }
    Ok(())
}

pub(super) fn handles(fixture: &mut Fixture) -> Verdict {
    let server = fixture.server()?;
    let failed = |e: io::Error| e.to_string();
    let root = Client::connect(server.mount_port())
        .and_then(|mut c| c.mount(&server.export()))
        .map_err(failed)?
        .map_err(|s| format!("MNT: {s}"))?;
    let mut client = connect(server)?;
    let refused = |status: u32| status == NFS3ERR_STALE || status == NFS3ERR_BADHANDLE;
    if client.getattr(&root).map_err(failed)? != 0 {
        return Err("the root's own handle is refused".into());
    }
    // A file that was removed.
    let file = client.create(&root, b"stale").map_err(failed)?.map_err(|s| format!("CREATE: {s}"))?;
    let wrote = client.write(&file, 0, b"some bytes", true).map_err(failed)?;
    let removed = client.remove(&root, b"stale").map_err(failed)?;
    if (wrote, removed) != (0, 0) {
        return Err(format!("WRITE {wrote}, REMOVE {removed}"));
    }
    for (what, status) in [
        ("GETATTR", client.getattr(&file).map_err(failed)?),
        ("READ", client.read(&file, 0, 10).map_err(failed)?),
        ("WRITE", client.write(&file, 0, b"x", true).map_err(failed)?),
    ] {
        if status != NFS3ERR_STALE {
            return Err(format!("{what} with a stale handle: status {status}, not {NFS3ERR_STALE}"));
        }
    }
    // A new file of the same name is another file.
    let next = client.create(&root, b"stale").map_err(failed)?.map_err(|s| format!("CREATE: {s}"))?;
    if next == file || client.getattr(&file).map_err(failed)? != NFS3ERR_STALE {
        return Err("a new file took over the old one's handle".into());
    }
    client.remove(&root, b"stale").map_err(failed)?;
    // Every single flipped bit must be noticed, by our server at least: handles are authenticated.
    if server.as_basalt().is_some() {
        for bit in 0..root.len() * 8 {
            let mut forged = root.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let status = client.getattr(&forged).map_err(failed)?;
            if !refused(status) {
                return Err(format!("a handle with bit {bit} flipped: status {status}"));
            }
        }
    }
    let mut rng = Rng::new(5);
    for len in [0, 1, 4, 16, 28, 32, 63, 64] {
        let forged = rng.bytes(len);
        match client.getattr(&forged) {
            Ok(status) if status != 0 => {}
            // A handle of a length that no NFSv3 handle has may end the connection.
            Err(_) if len == 0 => client = connect(server)?,
            other => return Err(format!("random bytes as a handle of {len} bytes: {other:?}")),
        }
    }
    alive(server, "forged handles")?;
    Ok(format!("handle of {} bytes", root.len()))
}
