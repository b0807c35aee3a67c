//! Rotation in the background of the daemon: whoever begins it needn't wait, and one that was cut short goes on.
//!
//! One task, which looks whenever something may have changed: at the start, after unlocking, when a rotation was
//! begun. Leans on the driver, which does it in steps and lets others in between. Refuses to try again by itself
//! after a failure: the next look does.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use crate::administration::Rotation;
use crate::driver::Driver;

/// Who looks.
#[derive(Debug, Default)]
pub(super) struct Rotator {
    wanted: Notify,
}

impl Rotator {
    /// There may be something to do.
    pub(super) fn look(&self) {
        self.wanted.notify_one();
    }

    /// Looks now, and as often as it is told to. Ends with the daemon.
    pub(super) async fn work(&self, driver: &Arc<Driver>, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let (driver, stop) = (Arc::clone(driver), stop.clone());
            if spawn_blocking(move || go_on(&driver, &stop)).await.is_err() {
                tracing::error!("rotation broke off");
            }
            self.wanted.notified().await;
        }
    }
}

fn go_on(driver: &Arc<Driver>, stop: &watch::Receiver<bool>) {
    if !driver.rotation_pending() {
        return;
    }
    let mut told = 0;
    let outcome = driver.rotate(&mut |Rotation { epoch, done, total }| {
        let tenths = (10 * done).checked_div(total).unwrap_or(10);
        if tenths > told {
            told = tenths;
            tracing::info!("rotation to epoch {epoch}: {done} of {total} secrets are sealed anew");
        }
        // A step is durable when it is done: being ended in between costs nothing.
        if *stop.borrow() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match outcome {
        Ok(()) if driver.rotation_pending() => {}
        Ok(()) => tracing::info!("rotation is done: the key of the epoch before is gone"),
        Err(error) => tracing::warn!("rotation stands still: {error}"),
    }
}
