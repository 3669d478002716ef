//! Random operations against the model, cut by crashes at any moment.

use super::World;
use super::model::{Model, lines_of, listed};
use crate::planted::{self, Planted};
use crate::vfs::*;
use std::collections::BTreeMap;

/// What one run found wrong, so that planted faults can be shown to be found.
fn run(seed: u64, cores: u16, ops: usize, fault: Option<Planted>) -> Result<u64, String> {
    let mut w = World::new(seed, cores, 5);
    planted::set(fault);
    let mut model = Model::new();
    let mut crashes = 0;
    for step in 0..ops {
        let op = model.random_op(|n| w.draw(n));
        let mut after = model.clone();
        let want = after.apply(&op);
        let answer = w.start(model.ask(&op, Context::root()));
        // Most are let finish; some are cut at a moment of chance.
        let cut_us = if w.draw(6) == 0 { Some(w.draw(1500)) } else { None };
        match cut_us {
            None => {
                w.sim.run_until(std::time::Duration::from_secs(5), || answer.borrow().is_some());
            }
            Some(us) => w.let_pass_us(us),
        }
        let got = answer.borrow_mut().take();
        match &got {
            Some(got) if got.map(drop) != want => {
                return Err(format!("seed {seed}, step {step}: {op:?} answers {got:?}, not {want:?}"));
            }
            Some(Ok(made)) => {
                if let Some(ino) = made {
                    after.adopt_one(&op, *ino);
                }
                model = after.clone();
            }
            Some(Err(_)) => {}
            None if cut_us.is_none() => return Err(format!("seed {seed}, step {step}: {op:?} hangs")),
            None => {}
        }
        if cut_us.is_some() {
            crashes += 1;
            let cores = 1 + w.draw(4) as u16;
            w.crash(cores);
            planted::set(fault);
            let found = w.run(listed);
            let lines = lines_of(&found);
            if got.is_none() && want.is_ok() && lines == after.lines() {
                model = after;
            } else if lines != model.lines() {
                return Err(format!(
                    "seed {seed}, step {step}: after {op:?} was cut: {lines:?}, not {:?} nor {:?}",
                    model.lines(),
                    after.lines()
                ));
            }
            model.adopt(&found);
            let faults = w.check();
            if !faults.is_empty() {
                return Err(format!("seed {seed}, step {step}: after {op:?} was cut: {faults:?}"));
            }
        }
    }
    let found = w.run(listed);
    if lines_of(&found) != model.lines() {
        return Err(format!("seed {seed}: in the end {:?}, not {:?}", lines_of(&found), model.lines()));
    }
    model.adopt(&found);
    let faults = w.check();
    if !faults.is_empty() {
        return Err(format!("seed {seed}: {faults:?}"));
    }
    Ok(crashes)
}

fn runs(seeds: std::ops::Range<u64>, fault: Option<Planted>) -> Result<(), String> {
    let mut crashes = 0;
    for seed in seeds {
        crashes += run(seed, [1, 3][seed as usize % 2], 150, fault)?;
    }
    assert!(crashes > 10);
    Ok(())
}

#[test]
fn names_survive_crashes_whole() {
    runs(0..200, None).unwrap();
}

/// For `make test-all`.
#[test]
#[ignore = "minutes"]
fn names_survive_many_crashes_whole() {
    runs(1000..11_000, None).unwrap();
    (1000..5000).for_each(concurrent_clients);
}

#[test]
fn planted_faults_are_found() {
    for fault in [Planted::RenameNotAtomic, Planted::LinkCountSkipped] {
        let found = runs(0..40, Some(fault));
        planted::set(None);
        assert!(found.is_err(), "{fault:?} was not found");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let hash = |seed| {
        let mut w = World::new(seed, 3, 5);
        let model = Model::new();
        for _ in 0..50 {
            let op = model.random_op(|n| w.draw(n));
            let _ = w.run(model.ask(&op, Context::root()));
        }
        w.sim.trace_hash()
    };
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
}

/// Many at once on the same few names: answers are any of the sensible ones, and the tree holds together.
#[test]
fn concurrent_clients_leave_a_sound_tree() {
    (0..100).for_each(concurrent_clients);
}

fn concurrent_clients(seed: u64) {
    let mut w = World::new(seed, [1, 3][seed as usize % 2], 5);
    let top = w.run(|fs| async move {
        let mut dirs = vec![crate::ops::ROOT];
        for name in ["p", "q", "r"] {
            let d = fs.mkdir_at(crate::ops::ROOT, name).await.unwrap();
            dirs.push(d);
            dirs.push(fs.mkdir_at(d, "s").await.unwrap());
        }
        dirs
    });
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let answers: Vec<_> = (0..8)
        .map(|client| {
            let top = top.clone();
            w.start(move |fs| async move {
                let mut answers = Vec::new();
                let mut state = seed * 100 + client;
                for _ in 0..40 {
                    let mut draw = |n: u64| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        (state >> 33) % n
                    };
                    let name = |n: u64| ["p", "q", "x", "y"][n as usize];
                    let (a, b) = (top[draw(7) as usize], top[draw(7) as usize]);
                    let (x, y) = (name(draw(4)), name(draw(4)));
                    let answer = match draw(6) {
                        0 => fs.create_at(a, x).await.map(drop),
                        1 => fs.mkdir_at(a, x).await.map(drop),
                        2 => fs.rm(a, x).await,
                        3 => match fs.find_at(a, x).await {
                            Ok(f) => fs.link(&Context::root(), f.ino, b, y.as_bytes()).await.map(drop),
                            Err(e) => Err(e),
                        },
                        _ => fs.mv(a, x, b, y).await,
                    };
                    answers.push(answer);
                }
                answers
            })
        })
        .collect();
    let cut = seed % 3 == 2;
    if cut {
        w.let_pass_us(5_000);
        w.crash(2);
    } else {
        let done = w
            .sim
            .run_until(std::time::Duration::from_secs(20), || answers.iter().all(|a| a.borrow().is_some()));
        assert!(done, "seed {seed}: a client hangs");
    }
    for answer in answers.iter().filter_map(|a| a.borrow_mut().take()).flatten() {
        let text = answer.err().map_or("ok".to_string(), |e| format!("{e:?}"));
        *tally.entry(text).or_default() += 1;
    }
    assert!(!tally.contains_key("Io"), "seed {seed}: {tally:?}");
    let faults = w.check();
    assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
    w.run(listed);
}

#[test]
fn a_hundred_creates_in_one_directory_at_once() {
    for cores in [1, 3] {
        let mut w = World::new(7, cores, 4);
        let dir = w.run(|fs| async move { fs.mkdir_at(crate::ops::ROOT, "dir").await.unwrap() });
        let answers: Vec<_> = (0..100)
            .map(|n| w.start(move |fs| async move { fs.create_at(dir, &format!("file {n}")).await }))
            .collect();
        w.let_pass_us(1_000_000);
        let inos: std::collections::BTreeSet<Ino> =
            answers.iter().map(|a| a.borrow().expect("answers").expect("is made")).collect();
        assert_eq!(inos.len(), 100);
        let listed = w.run(move |fs| async move { fs.ls(dir).await.unwrap() });
        assert_eq!(listed.len(), 100);
        assert!(listed.windows(2).all(|w| w[0].cookie < w[1].cookie) && listed[0].cookie >= 3);
        w.crash(2);
        assert_eq!(w.run(move |fs| async move { fs.ls(dir).await.unwrap() }), listed);
        w.assert_sound();
    }
}
