//! A blank server installs itself, and serves from its own disk without the network's images.

use crate::cases::{Bench, Outcome, check};
use crate::domain::{FIRST_SERIAL, Firmware};
use crate::node::nfs_answers;
use crate::rack::Rack;
use crate::story::address;
use crate::world::{World, make_dir};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Instant;

pub(crate) fn one_server(bench: &mut Bench<'_>) -> Outcome {
    bench.clear();
    let world = bench.world;
    let rack = Rack::new(world, 3, &[Firmware::Uefi])?;
    let [server] = &rack.servers[..] else { return Err("not one server".into()) };
    rack.add()?;
    let _boots = rack.station.serve_boots(world, &with_bundle(world, &rack)?)?;
    let install = ["node", "provision", &server.name, "--install", "--drive", FIRST_SERIAL];
    // Its BMC cannot look into the drive; the node does, and nobody said that what it finds may go.
    server.mark_as_ext4()?;
    let (code, out, _) = rack.station.run(&install)?;
    check(code == 36 && out.contains("ext4"), || format!("not told to wipe: {code}: {out}"))?;
    let begin = Instant::now();
    let mut told = install.to_vec();
    told.extend(["--wipe", FIRST_SERIAL]);
    rack.station.ok(&told)?;
    let seconds = begin.elapsed().as_secs();
    let node = rack.station.node(&["show", &server.name])?;
    let history = node["node"]["history"].to_string();
    check(history.contains("installed"), || format!("it runs and was not installed: {history}"))?;
    check(node["node"]["wanted"]["wipe"].as_array().is_none_or(Vec::is_empty), || {
        format!("a permission to wipe is left: {}", node["node"]["wanted"])
    })?;
    nfs_answers(&address(&rack, &server.mac)?)?;
    let steps = rack.station.boot_steps(&server.mac)?;
    for step in ["installing", "installed", "ready"] {
        check(steps.iter().any(|s| s == step), || format!("no step {step}: {steps:?}"))?;
    }
    Ok(format!("blank, installed on drive {FIRST_SERIAL}, serving from it after {seconds} s"))
}

/// The images, and beside them the bundle that nodes install.
fn with_bundle(world: &World, rack: &Rack) -> Result<PathBuf, String> {
    let (out, served) = (world.image.join("out"), world.scratch.join("served"));
    make_dir(&served)?;
    for entry in fs::read_dir(&out).map_err(|e| e.to_string())?.flatten() {
        let to = served.join(entry.file_name());
        symlink(entry.path(), &to).map_err(|e| format!("{}: {e}", to.display()))?;
    }
    let [out, key, bundle] = [
        out,
        world.image.join("test-keys/manifest.key"),
        served.join(format!("basalt_{}.bundle", world.version)),
    ]
    .map(|path| path.display().to_string());
    rack.station.ok(&["upgrade", "bundle", "--image", &out, "--sign", &key, "--out", &bundle])?;
    Ok(served)
}
