//! What the library warns of while a command runs, on standard error: a file with passwords that others can read, a
//! certificate that is accepted though it is wrong.
//!
//! Leans on `tracing`, through which the library speaks, and on [`output`] for the line. Refuses to show anything
//! below a warning, and what the driver says about a store as a whole: both are for a daemon's log.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::output;

/// Shows warnings from now on, unless somebody else takes them already.
pub(super) fn show() {
    _ = tracing::subscriber::set_global_default(Warnings);
}

struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let room = metadata.target().strip_prefix(OURS).and_then(|rest| rest.split("::").nth(1));
        metadata.is_event() && *metadata.level() <= Level::WARN && room.is_some_and(|room| room != DRIVER)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        output::warn(&words.told());
    }

    // There are no spans: none is enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event's message, and what else it names.
#[derive(Default)]
struct Words {
    message: String,
    details: String,
}

impl Words {
    fn told(self) -> String {
        if self.details.is_empty() { self.message } else { format!("{} ({})", self.message, self.details) }
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                let comma = if self.details.is_empty() { "" } else { ", " };
                write!(self.details, "{comma}{name}: {value:?}")
            }
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// The library's own; its dependencies speak for themselves elsewhere.
const OURS: &str = env!("CARGO_CRATE_NAME");

const DRIVER: &str = "driver";

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what would be shown.
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            Warnings.enabled(metadata)
        }
        fn event(&self, event: &Event<'_>) {
            let mut words = Words::default();
            event.record(&mut words);
            self.0.lock().unwrap().push(words.told());
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            panic!("no span is enabled")
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn warnings_and_errors_are_shown_with_what_they_name_and_nothing_else_is() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Kept(Arc::clone(&shown)), || {
            tracing::debug!("nobody cares");
            tracing::info!("nor here");
            tracing::warn!("the file '{}' is open", "x");
            tracing::error!(uuid = %"3f6b", name = "y", "it broke");
            tracing::warn!(target: "elsewhere::x", "not ours");
            tracing::warn!(target: "strongroom::driver::locking", "for the daemon");
            let _span = tracing::warn_span!("a span").entered();
        });
        assert_eq!(*shown.lock().unwrap(), ["the file 'x' is open", "it broke (uuid: 3f6b, name: y)"]);
    }
}
