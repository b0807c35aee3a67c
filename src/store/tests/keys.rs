//! A life of keys and epochs, cut off or disturbed at each operation: what was acknowledged opens by the keys that
//! shall open it and by no others, and a rotation that was under way comes to its end.

use super::crash::Step::*;
use super::crash::{Step, cut_everywhere, fail_everywhere, kill_then_cut_everywhere, live};
use super::*;

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
    cut_everywhere(STEPS, operations_of_a_life());
}

#[test]
fn any_operation_of_a_change_of_keys_may_fail() {
    fail_everywhere(STEPS, operations_of_a_life());
}

#[test]
fn the_power_may_go_after_a_change_of_keys_was_killed() {
    kill_then_cut_everywhere(STEPS, operations_of_a_life(), 3);
}
