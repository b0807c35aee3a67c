//! Rotation while calls go on, the keystore is locked, or somebody else asks for it too.

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::administration::Rotation;
use crate::driver::RotationPolicy;
use crate::secret::Error;

/// A keystore of so many secrets, each with a value.
fn filled(root: &Path, count: u8) -> Arc<Driver> {
    let driver = driver(root);
    let connection = connect(&driver);
    for number in 0..count {
        let uuid = format!("{number:02x}000000-0000-0000-0000-000000000000");
        connection.define_xml(xml(&uuid, "", &uuid), 0).unwrap().set_value(&[number + 1]).unwrap();
    }
    driver
}

/// Rotates to the end.
fn rotate(driver: &Driver, mut watch: impl FnMut(Rotation)) -> Result<(), Error> {
    driver.rotate(&mut |progress| {
        watch(progress);
        ControlFlow::Continue(())
    })
}

fn check_values(driver: &Arc<Driver>, count: u8) {
    let connection = connect(driver);
    for number in 0..count {
        let uuid = format!("{number:02x}000000-0000-0000-0000-000000000000");
        assert_eq!(value(&connection.lookup_by_uuid_string(&uuid).unwrap()), [number + 1]);
    }
}

#[test]
fn it_tells_how_far_it_is_and_ends_with_one_epoch() {
    let root = tempfile::tempdir().unwrap();
    let driver = filled(root.path(), 9);
    assert!(!driver.rotation_pending());
    let mut told = Vec::new();
    rotate(&driver, |progress| told.push(progress)).unwrap();
    assert!(told.is_sorted_by_key(|progress| progress.done) && told.len() > 2, "{told:?}");
    let last = told.last().unwrap();
    assert_eq!((last.epoch, last.done, last.total), (2, 9, 9));
    assert!(!driver.rotation_pending());
    let status = driver.status();
    assert_eq!((status.epochs, status.rotation), (vec![2], None));
    assert!(status.epoch_writes.unwrap() >= 9 && status.epoch_began.unwrap() > 0);
    check_values(&driver, 9);
    assert!(driver.verify().unwrap().findings.is_empty());
    drop(driver);
    check_values(&self::driver(root.path()), 9);
}

#[test]
fn locking_breaks_it_off_and_it_goes_on_after_unlocking() {
    let root = tempfile::tempdir().unwrap();
    let driver = filled(root.path(), 9);
    let mut steps = 0;
    let error = rotate(&driver, |_| {
        steps += 1;
        if steps == 2 {
            driver.lock().unwrap(); // a step holds nothing that this would wait for
        }
    })
    .unwrap_err();
    assert!(error.to_string().contains("locked while it was rotated"), "{error}");
    assert_eq!(steps, 2);
    assert!(!driver.rotation_pending(), "nothing can be done about it now");
    assert!(rotate(&driver, |_| {}).unwrap_err().to_string().contains("locked on purpose"));
    driver.unlock(&Keys::default()).unwrap();
    assert!(driver.rotation_pending());
    let under_way = driver.status().rotation.unwrap();
    assert!(under_way.done > 0 && under_way.done < under_way.total, "{under_way:?}");
    let mut first = None;
    rotate(&driver, |progress| _ = first.get_or_insert(progress)).unwrap();
    assert!(first.unwrap().done > under_way.done, "it goes on where it was");
    assert_eq!(driver.status().epochs, [2]);
    check_values(&driver, 9);
}

#[test]
fn who_asks_for_a_second_one_joins_the_first() {
    let root = tempfile::tempdir().unwrap();
    let driver = filled(root.path(), 9);
    let (joined, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut waited = false;
        let (begun, go) = mpsc::channel();
        let second = scope.spawn({
            let driver = &driver;
            move || {
                go.recv().unwrap();
                let mut told = 0;
                rotate(driver, |_| {
                    told += 1;
                    _ = joined.send(());
                })?;
                Ok::<_, Error>(told)
            }
        });
        rotate(&driver, |_| {
            if !waited {
                waited = true;
                begun.send(()).unwrap();
                wait.recv_timeout(Duration::from_secs(60)).expect("the second one is told of this one");
            }
        })
        .unwrap();
        assert!(second.join().unwrap().unwrap() > 0);
    });
    assert_eq!(driver.status().epochs, [2], "and not a third epoch");
    check_values(&driver, 9);
}

#[test]
fn who_watches_and_falls_keeps_nobody_waiting() {
    let root = tempfile::tempdir().unwrap();
    let driver = filled(root.path(), 5);
    let fell =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rotate(&driver, |_| panic!("on purpose"))));
    assert!(fell.is_err());
    rotate(&driver, |_| {}).unwrap();
    assert_eq!(driver.status().epochs, [2]);
}

#[test]
fn it_is_due_when_the_policy_says_so() {
    let root = tempfile::tempdir().unwrap();
    let driver = filled(root.path(), 3);
    assert_eq!(driver.rotation_policy(), RotationPolicy::default());
    assert_eq!(driver.status().rotation_due, None);
    driver.set_rotation_policy(RotationPolicy { max_age: None, max_writes: Some(2) });
    let due = driver.status().rotation_due.unwrap();
    assert!(due.contains("writes") && due.contains("strongroom rotate"), "{due}");
    driver.set_rotation_policy(RotationPolicy { max_age: Some(Duration::ZERO), max_writes: None });
    assert!(driver.status().rotation_due.unwrap().contains("0 days old"));
}

#[test]
fn the_watcher_may_break_it_off_and_it_goes_on_when_asked_again() {
    let root = tempfile::tempdir().unwrap();
    let driver = filled(root.path(), 9);
    driver.rotate(&mut |_| ControlFlow::Break(())).unwrap();
    assert!(driver.rotation_pending());
    rotate(&driver, |_| {}).unwrap();
    assert!(!driver.rotation_pending());
    check_values(&driver, 9);
}
