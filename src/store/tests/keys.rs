//! A life of keys and epochs, cut off or disturbed at each operation: what was acknowledged opens by the keys that
//! shall open it and by no others, and a rotation that was under way comes to its end.

use super::crash::Step::*;
use super::crash::{LEFTS, Step, check, live};
use super::*;
use crate::store::simulated::Left;

/// Every change of keys, with secrets changed in between.
const STEPS: &[Step] = &[
    Define(1, "one"),
    Set(1, "first"),
    Define(2, "two"),
    Set(2, "second"),
    Define(3, "three"),
    AddKey(2),
    ChangeKey(2, 3),
    BeginRotation,
    Set(2, "in the new epoch"),
    RotateSome,
    Undefine(3),
    Define(4, "four"),
    Reopen,
    Set(1, "first again"),
    RotateSome,
    AddKey(4),
    EndRotation,
    KeepKeyring,
    RemoveKey(4),
    Rekey(&[1, 3]),
    AddKey(5),
    Set(2, "under the new root key"),
    Rekey(&[1]),
    PutBack,
    Set(4, "under the old one"),
    Reopen,
    BeginRotation,
    EndRotation,
    Set(1, "at last"),
];

fn operations_of_a_life() -> usize {
    let disk = SimulatedDisk::default();
    let story = live(&disk, STEPS);
    assert_eq!(story.acknowledged[&1], ("one".into(), Some(b"at last".to_vec())));
    assert_eq!(boot(&disk).unwrap().unwrap().keyring().epochs().collect::<Vec<_>>(), [3]);
    disk.operations()
}

#[test]
fn the_power_may_go_at_any_point_of_a_change_of_keys() {
    for cut in 0..=operations_of_a_life() {
        let disk = SimulatedDisk::default();
        disk.cut_power_at(cut);
        let story = live(&disk, STEPS);
        for left in LEFTS {
            let case = format!("power cut at operation {cut}, left {left:?}");
            check(&disk.after_power_cut(left), &story, &case);
        }
    }
}

#[test]
fn any_operation_of_a_change_of_keys_may_fail() {
    for fault in 0..=operations_of_a_life() {
        let disk = SimulatedDisk::default();
        disk.fail_at(fault);
        let story = live(&disk, STEPS);
        for left in [Left::All, Left::Nothing, Left::Some(fault as u64)] {
            check(&disk.after_power_cut(left), &story, &format!("fault at operation {fault}, left {left:?}"));
        }
    }
}

#[test]
fn the_power_may_go_after_a_change_of_keys_was_killed() {
    for cut in (0..=operations_of_a_life()).step_by(3) {
        let disk = SimulatedDisk::default();
        disk.cut_power_at(cut);
        let story = live(&disk, STEPS);
        let whole = disk.after_kill();
        drop(boot(&whole));
        for again in 0..=whole.operations() {
            let twice = disk.after_kill();
            twice.cut_power_at(again);
            drop(boot(&twice));
            for left in [Left::Nothing, Left::Some(again as u64)] {
                let case = format!("killed at {cut}, power cut at {again} of the next life, left {left:?}");
                check(&twice.after_power_cut(left), &story, &case);
            }
        }
    }
}
