//! A machine that loses power, or a disk that fails, at each operation in turn: the store opens afterwards, holds
//! everything acknowledged, nothing half-written, and no older value in the place of a newer.

use std::collections::BTreeSet;

use super::*;
use crate::administration::Finding;
use crate::store::put_back_keyring;
use crate::store::simulated::Left;

/// What a program does with its store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Define(u8, &'static str),
    Set(u8, &'static str),
    Undefine(u8),
    /// Host keys, by the byte that they are made of. Key 1 is there from the beginning, and stays.
    AddKey(u8),
    ChangeKey(u8, u8),
    RemoveKey(u8),
    Rekey(&'static [u8]),
    /// Keeps a copy of the keyring, and puts it back, older though it is.
    KeepKeyring,
    PutBack,
    BeginRotation,
    RotateSome,
    EndRotation,
    Compact,
    Reopen,
}
pub(super) use Step::*;

/// Every kind of change, each after and before every other kind that matters.
const STEPS: &[Step] = &[
    Define(1, "one"),
    Set(1, "first"),
    Define(2, "two"),
    Set(2, "second"),
    Set(1, "first again"),
    Define(1, "one, redefined"),
    AddKey(2),
    Undefine(2),
    Reopen,
    Set(1, "third time"),
    Compact,
    Define(3, "three"),
    Set(3, "kept"),
    RemoveKey(2),
    Define(2, "two is back"),
    Compact,
    Undefine(3),
    Reopen,
    Set(2, "at last"),
];

fn perform(store: &Store, step: Step) -> Result<(), StoreError> {
    match step {
        Define(secret, description) => define(store, secret, description),
        Set(secret, value) => set(store, secret, value.as_bytes()),
        Undefine(secret) => undefine(store, secret),
        AddKey(key) => change_keyring(store, |keyring| {
            keyring.add_slot(&NewSlot::HostKey(&host_key(key)), &key.to_string(), 0).map(|_| ())
        }),
        ChangeKey(old, new) => change_keyring(store, |keyring| {
            let made = keyring.make_slot(&NewSlot::HostKey(&host_key(new)), &new.to_string(), 0)?;
            keyring.replace_slot(slot_of(keyring, old), made).map(|_| ())
        }),
        RemoveKey(key) => change_keyring(store, |keyring| keyring.remove_slot(slot_of(keyring, key))),
        Rekey(kept) => change_keyring(store, |keyring| {
            let openers: Vec<_> = kept.iter().map(|key| Opener::HostKey(host_key(*key))).collect();
            let keep = kept.iter().zip(&openers).map(|(key, opener)| (slot_of(keyring, *key), opener));
            *keyring = keyring.rekeyed(&keep.collect::<Vec<_>>())?;
            Ok(())
        }),
        BeginRotation => store.begin_rotation(0),
        RotateSome => store.rotate_some().map(|_| ()),
        EndRotation => {
            while store.rotate_some()?.is_some() {}
            assert!(store.end_rotation()?);
            Ok(())
        }
        Compact => store.exclusively(|store, log| store.compact(log)),
        KeepKeyring | PutBack | Reopen => Ok(()),
    }
}

fn slot_of(keyring: &Keyring, key: u8) -> Uuid {
    keyring.slots().find(|slot| slot.label == key.to_string()).expect("the key has a slot").id
}

fn expect(secrets: &mut Secrets, step: Step) {
    match step {
        Define(secret, description) => secrets.entry(secret).or_default().0 = description.into(),
        Set(secret, value) => secrets.entry(secret).or_default().1 = Some(value.into()),
        Undefine(secret) => _ = secrets.remove(&secret),
        _ => {}
    }
}

fn expect_keys(keys: &mut BTreeSet<u8>, kept: &BTreeSet<u8>, step: Step) {
    match step {
        AddKey(key) => _ = keys.insert(key),
        RemoveKey(key) => _ = keys.remove(&key),
        ChangeKey(old, new) => {
            keys.remove(&old);
            keys.insert(new);
        }
        Rekey(those) => *keys = those.iter().copied().collect(),
        PutBack => keys.clone_from(kept),
        _ => {}
    }
}

/// How far a program came: what was acknowledged, and what would hold if the last step had been.
pub(super) struct Story {
    created: bool,
    pub(super) acknowledged: Secrets,
    in_flight: Secrets,
    /// The host keys that open it: those acknowledged, and those in flight.
    keys: [BTreeSet<u8>; 2],
}

/// Makes a store and goes through all steps, up to the first that fails.
pub(super) fn live(disk: &SimulatedDisk, steps: &[Step]) -> Story {
    let (acknowledged, in_flight) = (Secrets::new(), Secrets::new());
    let keys = [BTreeSet::from([1]), BTreeSet::from([1])];
    let mut story = Story { created: false, acknowledged, in_flight, keys };
    let mut kept = (Vec::new(), BTreeSet::new());
    if create(disk).is_err() {
        return story;
    }
    story.created = true;
    let Ok(Some(mut store)) = boot(disk) else { return story };
    for &step in steps {
        expect(&mut story.in_flight, step);
        expect_keys(&mut story.keys[1], &kept.1, step);
        if matches!(step, KeepKeyring) {
            kept = (store.keyring().encode().unwrap(), story.keys[0].clone());
        }
        if matches!(step, Reopen | PutBack) {
            drop(store);
            let openers = [Opener::HostKey(host_key(1))];
            if matches!(step, PutBack) && put_back_keyring(&disk.disk(), &kept.0, &openers, true).is_err() {
                return story;
            }
            match boot(disk) {
                Ok(Some(again)) => store = again,
                _ => return story,
            }
        }
        if perform(&store, step).is_err() {
            return story;
        }
        story.acknowledged = story.in_flight.clone();
        story.keys[0] = story.keys[1].clone();
        assert_eq!(secrets(&store), story.acknowledged, "after {step:?}");
    }
    story
}

/// Boots what was left, and holds it against the story.
pub(super) fn check(disk: &SimulatedDisk, story: &Story, case: &str) {
    let store = match boot(disk) {
        Ok(Some(store)) => store,
        Ok(None) if !story.created => {
            create(disk)
                .unwrap_or_else(|error| panic!("{case}: an unfinished store can't be made anew: {error}"));
            return;
        }
        Ok(None) => panic!("{case}: the store is gone"),
        Err(error) => panic!("{case}: the store doesn't open: {error}"),
    };
    let found = secrets(&store);
    let right = found == story.acknowledged || found == story.in_flight;
    assert!(
        right,
        "{case}: found {found:?}\nacknowledged {:?}\nin flight {:?}",
        story.acknowledged, story.in_flight
    );
    check_keys(disk, story, case);
    let condition = store.condition();
    assert_eq!(condition.read_only, None, "{case}: {:?}", condition.findings);
    let verified = store.verify().unwrap();
    // A torn tail is reported and kept aside, an anchor or a copy may have been caught half written and is mended;
    // nothing else may be wrong, and nothing may lie around.
    let wrong = verified.findings.iter().filter(|finding| match finding {
        Finding::TornTail { .. } | Finding::AnchorUnreadable => false,
        Finding::CopyDiffers { rebuilt, .. } => !rebuilt,
        Finding::Orphan { file } => !file.contains(".torn-") && !is_replaced(file),
        _ => true,
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<&Finding>::new(), "{case}");
    if store.is_rotating() {
        perform(&store, EndRotation)
            .unwrap_or_else(|error| panic!("{case}: the rotation can't end: {error}"));
        assert_eq!((secrets(&store), store.keyring().epochs().count()), (found, 1), "{case}");
    }
    define(&store, 9, "life goes on").unwrap_or_else(|error| panic!("{case}: no change is taken: {error}"));
}

/// Every key that may have been there opens it, or not, as was acknowledged. The one in flight may do either.
fn check_keys(disk: &SimulatedDisk, story: &Story, case: &str) {
    let locked = read_keyring(&disk.disk()).unwrap().expect("there is a keyring");
    for key in 1..9 {
        let opens = locked.unlock(&[Opener::HostKey(host_key(key))]).is_ok();
        let expected = story.keys.each_ref().map(|keys| keys.contains(&key));
        assert!(expected.contains(&opens), "{case}: key {key} opens it: {opens}");
    }
}

/// A keyring that was put aside whole. What is left of a copy that never was is swept.
fn is_replaced(file: &str) -> bool {
    file.strip_prefix("keyring.replaced-").is_some_and(|number| number.parse::<u32>().is_ok())
}

pub(super) const LEFTS: [Left; 6] =
    [Left::Nothing, Left::All, Left::Some(1), Left::Some(2), Left::Some(3), Left::Some(4)];

fn operations_of_a_life() -> usize {
    let disk = SimulatedDisk::default();
    let story = live(&disk, STEPS);
    assert_eq!(story.acknowledged[&2], ("two is back".into(), Some(b"at last".to_vec())));
    disk.operations()
}

#[test]
fn the_power_may_go_at_any_point() {
    cut_everywhere(STEPS, operations_of_a_life());
}

/// Lives with a cut at each operation.
pub(super) fn cut_everywhere(steps: &[Step], operations: usize) {
    for cut in 0..=operations {
        let disk = SimulatedDisk::default();
        disk.cut_power_at(cut);
        let story = live(&disk, steps);
        for left in LEFTS {
            let case = format!("power cut at operation {cut}, left {left:?}");
            check(&disk.after_power_cut(left), &story, &case);
        }
    }
}

#[test]
fn the_power_may_go_again_while_the_store_recovers() {
    for cut in (0..=operations_of_a_life()).step_by(5) {
        let disk = SimulatedDisk::default();
        disk.cut_power_at(cut);
        let story = live(&disk, STEPS);
        for left in [Left::Some(cut as u64)] {
            let once = disk.after_power_cut(left);
            let whole = once.after_power_cut(Left::All);
            drop(boot(&whole));
            for again in 0..whole.operations() {
                let twice = once.after_power_cut(Left::All);
                twice.cut_power_at(again);
                drop(boot(&twice));
                let case =
                    format!("power cut at operation {cut}, left {left:?}, and at {again} of the recovery");
                check(&twice.after_power_cut(Left::Some(again as u64)), &story, &case);
            }
        }
    }
}

#[test]
fn the_power_may_go_after_a_killed_process_was_started_again() {
    kill_then_cut_everywhere(STEPS, operations_of_a_life(), 1);
}

/// Lives, is killed at each operation (or each so many), and loses power at each of the next life's.
pub(super) fn kill_then_cut_everywhere(steps: &[Step], operations: usize, stride: usize) {
    for cut in (0..=operations).step_by(stride) {
        let disk = SimulatedDisk::default();
        disk.cut_power_at(cut);
        let story = live(&disk, steps);
        let whole = disk.after_kill();
        drop(boot(&whole));
        for again in 0..=whole.operations() {
            let twice = disk.after_kill();
            twice.cut_power_at(again);
            drop(boot(&twice));
            for left in [Left::Nothing, Left::Some(again as u64), Left::Some(cut as u64 + 99)] {
                let case = format!(
                    "killed at operation {cut}, power cut at {again} of the next life, left {left:?}"
                );
                check(&twice.after_power_cut(left), &story, &case);
            }
        }
    }
}

#[test]
fn any_operation_may_fail() {
    fail_everywhere(STEPS, operations_of_a_life());
}

/// Lives with a fault at each operation.
pub(super) fn fail_everywhere(steps: &[Step], operations: usize) {
    for fault in 0..=operations {
        let disk = SimulatedDisk::default();
        disk.fail_at(fault);
        let story = live(&disk, steps);
        for left in [Left::All, Left::Nothing, Left::Some(fault as u64)] {
            check(&disk.after_power_cut(left), &story, &format!("fault at operation {fault}, left {left:?}"));
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_and_all_is_still_served() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    set(&store, 1, b"value").unwrap();
    let operations = disk.operations();
    // Of a change, the first operation is the write and the second the sync.
    disk.fail_at(operations + 1);
    let error = set(&store, 1, b"lost?").unwrap_err();
    assert!(matches!(error, StoreError::Write(..)), "{error}");
    assert!(matches!(set(&store, 1, b"again"), Err(StoreError::ReadOnly(_))));
    assert_eq!(secrets(&store)[&1].1.as_deref(), Some(&b"value"[..]));
    assert_eq!(disk.operations(), operations + 2, "nothing was retried");
}

#[test]
fn a_panic_in_a_change_stops_the_store_and_nobody_waits_for_ever() {
    let (_, store) = new_store();
    define(&store, 1, "one").unwrap();
    let error = store.exclusively(|_, _| -> Result<(), StoreError> { panic!("on purpose") }).unwrap_err();
    assert!(matches!(error, StoreError::Write(..)), "{error}");
    assert!(matches!(define(&store, 2, "two"), Err(StoreError::ReadOnly(_))));
    assert_eq!(secrets(&store).len(), 1);
}

#[test]
fn a_full_disk_refuses_the_change_and_nothing_else() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    disk.set_full(true);
    let refused = set(&store, 1, b"no room").unwrap_err();
    assert!(matches!(refused, StoreError::NoSpace(_)), "{refused}");
    assert_eq!(secrets(&store)[&1].1, None);
    disk.set_full(false);
    set(&store, 1, b"room again").unwrap();
    drop(store);
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap())[&1].1.as_deref(), Some(&b"room again"[..]));
}

#[test]
fn a_full_disk_leaves_no_half_of_an_anchor() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    drop(store);
    disk.forget(1, "anchor");
    disk.set_full(true);
    let store = boot(&disk).unwrap().unwrap();
    assert!(!disk.has(1, "anchor"));
    disk.set_full(false);
    define(&store, 1, "again").unwrap();
    assert!(disk.has(1, "anchor"));
    drop(store);
    assert_eq!(boot(&disk).unwrap().unwrap().condition().findings, []);
}
