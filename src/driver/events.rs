//! Events to whoever subscribed: after they are durable, on the thread that caused them.
//!
//! Leans on `secret` for what an event is. Refuses the same subscription twice in one session, as libvirt does.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::uuid::Uuid;

use crate::secret::{Error, Event, EventKind, EventSink, Subscription};

/// All subscriptions of a driver.
#[derive(Default)]
pub(super) struct Events {
    next_id: AtomicI32,
    registered: Mutex<Vec<Arc<Registration>>>,
}

struct Registration {
    id: i32,
    session: u64,
    kind: EventKind,
    only: Option<Uuid>,
    sink: EventSink,
}

impl Events {
    /// Registers a sink for a session. Ids count up from 0, over all sessions.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        session: u64,
        kind: EventKind,
        only: Option<Uuid>,
        sink: EventSink,
    ) -> Result<Subscription, Error> {
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if registered.iter().any(|other| (other.session, other.kind, other.only) == (session, kind, only)) {
            return Err(Error::already_subscribed());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        registered.push(Arc::new(Registration { id, session, kind, only, sink }));
        let events: Weak<Self> = Arc::downgrade(self);
        Ok(Subscription::new(id, move || {
            if let Some(events) = events.upgrade() {
                events
                    .registered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|other| other.id != id);
            }
        }))
    }

    /// Gives an event to all who asked for it.
    pub(super) fn emit(&self, event: &Event) {
        let asked = |registration: &&Arc<Registration>| {
            registration.kind == event.kind()
                && registration.only.is_none_or(|only| only == event.secret().uuid)
        };
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let sinks: Vec<Arc<Registration>> = registered.iter().filter(asked).cloned().collect();
        drop(registered);
        for registration in sinks {
            (registration.sink)(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Handle, Usage};
    use std::sync::mpsc;

    #[test]
    fn each_subscriber_gets_what_it_asked_for() {
        let events = Arc::new(Events::default());
        let one = Handle { uuid: Uuid::from_u128(1), usage: Usage::none() };
        let two = Handle { uuid: Uuid::from_u128(2), usage: Usage::none() };
        let (send, receive) = mpsc::channel();
        let sink = |name: &'static str| {
            let send = send.clone();
            Box::new(move |event: &Event| send.send((name, event.secret().uuid)).unwrap()) as EventSink
        };
        let all = events.subscribe(1, EventKind::ValueChanged, None, sink("all")).unwrap();
        let only = events.subscribe(1, EventKind::ValueChanged, Some(two.uuid), sink("only")).unwrap();
        assert_eq!((all.id(), only.id()), (0, 1));
        assert!(events.subscribe(1, EventKind::ValueChanged, None, sink("twice")).is_err());
        events.emit(&Event::ValueChanged(one.clone()));
        events.emit(&Event::ValueChanged(two.clone()));
        drop(all);
        events.emit(&Event::ValueChanged(one.clone()));
        let got: Vec<_> = receive.try_iter().collect();
        assert_eq!(got, [("all", one.uuid), ("all", two.uuid), ("only", two.uuid)]);
    }
}
