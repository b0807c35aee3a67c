//! Volumes with their secrets, by real images: made, proved, changed, removed; killed at every step; and no trace of a
//! passphrase. A file for each promise.
//!
//! Leans on qemu-img, on `support` for the second process that is killed, and on its markers. LUKS' key derivation is made
//! quick, and where hundreds of images are made qemu-img's look at how quick the machine is, too (`hasty_clock.c`).

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod copying;
mod daemon;
mod elsewhere;
mod house;
mod images;
mod keeping;
mod kills;
mod making;
mod orphans;
mod others;
mod removing;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod unprivileged;
