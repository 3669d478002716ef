//! Processors, their features, memory, NUMA nodes and hugepages.

use super::Tree;
use crate::record::{NumaNode, Processor, Record};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn read(tree: &Tree, record: &mut Record) {
    cpuinfo(&tree.text("proc/cpuinfo").unwrap_or_default(), record);
    record.memory_bytes =
        tree.text("proc/meminfo").and_then(|text| meminfo_bytes(&text, "MemTotal:")).unwrap_or(0);
    for name in tree.list("sys/devices/system/node") {
        let Some(id) = name.strip_prefix("node").and_then(|n| n.parse().ok()) else { continue };
        let dir = format!("sys/devices/system/node/{name}");
        let memory = tree.text(&format!("{dir}/meminfo")).and_then(|text| meminfo_bytes(&text, "MemTotal:"));
        record.numa.push(NumaNode {
            id,
            cpus: tree.text(&format!("{dir}/cpulist")).unwrap_or_default(),
            memory_bytes: memory.unwrap_or(0),
            hugepages: hugepages(tree, &format!("{dir}/hugepages")),
        });
    }
    if record.numa.is_empty() {
        let hugepages = hugepages(tree, "sys/kernel/mm/hugepages");
        if !hugepages.is_empty() {
            record.numa.push(NumaNode { hugepages, ..NumaNode::default() });
        }
    }
}

/// `MemTotal: 131903120 kB`; per node the line begins with `Node 0`.
fn meminfo_bytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.contains(field))?;
    let kib: u64 = line.split(field).nth(1)?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn hugepages(tree: &Tree, dir: &str) -> BTreeMap<u64, u64> {
    let pages = tree.list(dir).into_iter().filter_map(|name| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some((kib.checked_mul(1024)?, tree.number(&format!("{dir}/{name}/nr_hugepages"))?))
    });
    pages.collect()
}

/// x86 (`physical id`, `flags`) and Arm (`Features`, no sockets).
fn cpuinfo(text: &str, record: &mut Record) {
    let mut sockets: BTreeMap<String, (Processor, BTreeSet<String>)> = BTreeMap::new();
    for block in text.split("\n\n") {
        let field = |name: &str| {
            let line = block.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        if field("processor").is_none() {
            continue;
        }
        if record.cpu_features.is_empty() {
            let features = field("flags").or_else(|| field("Features")).unwrap_or_default();
            record.cpu_features = features.split_whitespace().map(str::to_owned).collect();
        }
        let socket = field("physical id").unwrap_or_else(|| "0".into());
        let (cpu, cores) = sockets.entry(socket.clone()).or_default();
        cpu.socket = socket;
        cpu.threads += 1;
        cpu.model = field("model name").unwrap_or_default();
        cpu.manufacturer = field("vendor_id").or_else(|| field("CPU implementer")).unwrap_or_default();
        cores.insert(field("core id").unwrap_or_else(|| cpu.threads.to_string()));
    }
    record.processors =
        sockets.into_values().map(|(cpu, cores)| Processor { cores: cores.len() as u32, ..cpu }).collect();
}
