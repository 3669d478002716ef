//! Which switches may be changed at the same time.

use crate::intent::{Fabric, Role};
use crate::names::DeviceName;
use std::collections::BTreeSet;

/// `switches` in waves. Within a wave no two are a pair, and no two have a node in common, so a node keeps one of its ways. Leaves
/// come first; spines follow one at a time, since every path crosses one.
pub fn waves(fabric: &Fabric, switches: &[DeviceName]) -> Vec<Vec<DeviceName>> {
    let role = |name: &DeviceName| fabric.switch(name).map(|s| s.role);
    let (spines, leaves): (Vec<_>, Vec<_>) =
        switches.iter().partition(|name| role(name) == Some(Role::Spine));
    let mut waves: Vec<(Vec<DeviceName>, BTreeSet<&DeviceName>)> = Vec::new();
    for leaf in leaves {
        let touched = touches(fabric, leaf);
        match waves.iter_mut().find(|(_, taken)| taken.is_disjoint(&touched)) {
            Some((wave, taken)) => {
                wave.push(leaf.clone());
                taken.extend(touched);
            }
            None => waves.push((vec![leaf.clone()], touched)),
        }
    }
    let leaves = waves.into_iter().map(|(wave, _)| wave);
    leaves.chain(spines.into_iter().map(|spine| vec![spine.clone()])).collect()
}

/// The switch, its mate, and the nodes that hang on it.
fn touches<'a>(fabric: &'a Fabric, switch: &'a DeviceName) -> BTreeSet<&'a DeviceName> {
    let nodes = fabric.links_of(switch).map(|(_, far, _)| &far.device).filter(|d| fabric.switch(d).is_none());
    let pair = fabric.pair_of(switch).into_iter().flat_map(|pair| &pair.switches);
    nodes.chain(pair).chain([switch]).collect()
}
