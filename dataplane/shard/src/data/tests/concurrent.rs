//! Many tasks on one file: each owns every fourth 700-byte strip and must find in it what it wrote last, while
//! write-back, eviction, packing, and the growing of the file go on.

use super::*;
use basalt_reactor::sim::Sim;
use basalt_reactor::sync::join_all;

const F: Ino = Ino(9);
const STRIP: usize = 700;
const STRIPS: usize = 2000;
const TASKS: usize = 4;

async fn owner(s: &Shard, me: usize, rounds: usize) {
    let mut mine = vec![Vec::new(); STRIPS];
    for _ in 0..rounds {
        let n = below(STRIPS / TASKS) * TASKS + me;
        match below(6) {
            0..3 => {
                let content = noise(STRIP);
                let stability = if below(4) == 0 { Stability::FileSync } else { Stability::Unstable };
                s.write(F, n * STRIP, &content, stability).await.unwrap();
                mine[n] = content;
            }
            3 => {
                s.data.commit(F, 0, 0).await.unwrap();
            }
            4 => {
                let (from, len) = (n * STRIP + 100, 300);
                s.data.deallocate(F, from as u64, len as u64, &any).await.unwrap();
                if !mine[n].is_empty() {
                    mine[n][100..400].fill(0);
                }
            }
            _ => {
                let got = s.read(F, n * STRIP, STRIP).await.unwrap();
                if !mine[n].is_empty() {
                    assert!(got == mine[n], "strip {n} of task {me}");
                }
            }
        }
    }
    for (n, content) in mine.iter().enumerate().filter(|(_, c)| !c.is_empty()) {
        assert!(s.read(F, n * STRIP, STRIP).await.unwrap() == *content, "strip {n} of task {me} at the end");
    }
}

fn run(seed: u64) -> u64 {
    let mut sim = Sim::new(seed);
    let node = sim.add_node(1);
    sim.block_on(node, || async {
        let s = open(&Media::new());
        s.create(F).await;
        // One extends, so that nobody's punch meets the end of the file; one flushes.
        s.truncate(F, STRIP * STRIPS).await.unwrap();
        let flusher = async {
            for _ in 0..20 {
                s.index.flush().await.unwrap();
                basalt_reactor::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let owners = async {
            join_all((0..TASKS).map(|me| owner(&s, me, 150))).await;
            s.audit(F).await;
        };
        let all: Vec<basalt_reactor::LocalBoxFuture<'_, ()>> = vec![Box::pin(flusher), Box::pin(owners)];
        join_all(all).await;
        s.data.sync().await.unwrap();
        s.audit(F).await;
    });
    sim.trace_hash()
}

#[test]
fn nobody_loses_a_write() {
    for seed in 0..12 {
        run(seed);
    }
}

#[test]
fn a_seed_repeats_itself() {
    assert_eq!(run(77), run(77));
}
