//! A client against a server that says what each test tells it to.

use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::fake::{Fake, route};
use super::route::Authentication;
use super::stream::tests::{sealed, toy};
use super::{Client, open};
use crate::memory::SecretBytes;
use crate::net::token::SystemToken;
use crate::rpc::fault::refusal;
use crate::rpc::keepalive::Beat;
use crate::rpc::remote::{
    AuthTypes, LifecycleEvent, Number, Open, Register, SecretName, SetValue, ValueChangedEvent, procedure,
};
use crate::rpc::typed::{Parameter, Typed};
use crate::rpc::xdr::List;
use crate::rpc::{Status, Text, Value, decode, packet};
use crate::secret::{
    Error, ErrorCode, ErrorDomain, Event, EventKind, EventSink, Keystore, Lifecycle, MAX_VALUE, NO_FLAGS,
    Subscription,
};

const ONE: Uuid = Uuid::from_bytes([1; 16]);
const TWO: Uuid = Uuid::from_bytes([2; 16]);

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(60);

/// Longer than anything takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(20);

fn secret(uuid: Uuid) -> SecretName<'static> {
    SecretName { uuid: uuid.into_bytes(), kind: 2, id: Text(b"client.x") }
}

fn is_lost(error: &Error) {
    assert_eq!(error.to_string(), "End of file while reading data: Input/output error");
    assert_eq!((error.code(), error.domain()), (ErrorCode::SystemError, ErrorDomain::Rpc));
}

/// Runs a call while the server does its part.
fn meanwhile<T: Send>(call: impl FnOnce() -> T + Send, serve: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let call = scope.spawn(call);
        serve();
        call.join().unwrap()
    })
}

/// A subscription that passes on what it hears.
fn subscribed(client: &Client, server: &mut Fake, id: i32) -> (Subscription, mpsc::Receiver<Event>) {
    let (send, receive) = mpsc::channel();
    let sink: EventSink = Box::new(move |event| _ = send.send(event.clone()));
    let subscribe = || client.subscribe(EventKind::Lifecycle, None, sink).unwrap();
    let subscription = meanwhile(subscribe, || {
        let (call, body) = server.call(procedure::CONNECT_SECRET_EVENT_REGISTER_ANY);
        assert_eq!(decode(&body), Ok(Register { event: 0, secret: None }));
        // In one go: the event must find its sink.
        let event = LifecycleEvent { callback: id, secret: secret(ONE), event: 0, detail: 0 };
        let (program, version) = (call.program, call.version);
        let kind = crate::rpc::Kind::Message;
        let header = crate::rpc::Header {
            program,
            version,
            procedure: procedure::SECRET_EVENT_LIFECYCLE,
            kind,
            serial: 1,
            status: Status::Ok,
        };
        server
            .send(&[packet(call.reply(Status::Ok), &Number { number: id }), packet(header, &event)].concat());
    });
    assert_eq!(subscription.id(), id);
    assert!(matches!(receive.recv(), Ok(Event::Lifecycle(of, Lifecycle::Defined)) if of.uuid == ONE));
    (subscription, receive)
}

#[test]
fn replies_find_their_callers_in_any_order() {
    let (client, mut server) = Fake::with_client(NEVER);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..20_u8)
            .map(|n| {
                let (client, uuid) = (&client, Uuid::from_bytes([n; 16]));
                scope.spawn(move || assert_eq!(client.lookup_by_uuid(uuid).unwrap().uuid, uuid))
            })
            .collect();
        let mut waiting: Vec<_> =
            calls.iter().map(|_| server.call(procedure::SECRET_LOOKUP_BY_UUID)).collect();
        waiting.reverse();
        waiting.swap(3, 11);
        for (call, uuid) in waiting {
            server.reply(call, &secret(Uuid::from_slice(&uuid).unwrap()));
        }
    });
}

#[test]
fn packets_may_come_in_any_pieces() {
    let (client, mut server) = Fake::with_client(NEVER);
    let handle = meanwhile(
        || client.lookup_by_uuid(ONE).unwrap(),
        || {
            let (call, _) = server.call(procedure::SECRET_LOOKUP_BY_UUID);
            for byte in packet(call.reply(Status::Ok), &secret(ONE)) {
                server.send(&[byte]);
            }
        },
    );
    assert_eq!((handle.uuid, &*handle.usage.id), (ONE, "client.x"));
}

#[test]
fn events_come_between_replies_and_end_with_their_subscription() {
    let (client, mut server) = Fake::with_client(NEVER);
    let (subscription, events) = subscribed(&client, &mut server, 7);
    let undefined = |callback| LifecycleEvent { callback, secret: secret(TWO), event: 1, detail: 0 };
    let count = meanwhile(
        || client.num_of_secrets().unwrap(),
        || {
            let (call, _) = server.call(procedure::CONNECT_NUM_OF_SECRETS);
            server.event(procedure::SECRET_EVENT_LIFECYCLE, &undefined(8)); // somebody else's
            let changed = ValueChangedEvent { callback: 7, secret: secret(TWO) };
            server.event(procedure::SECRET_EVENT_VALUE_CHANGED, &changed); // of another kind
            server.event(9999, &());
            server.event(procedure::SECRET_EVENT_LIFECYCLE, &undefined(7));
            server.reply(call, &Number { number: 3 });
        },
    );
    assert_eq!(count, 3);
    let heard: Vec<_> = events.try_iter().collect();
    assert!(
        matches!(&heard[..], [Event::Lifecycle(of, Lifecycle::Undefined)] if of.uuid == TWO),
        "{heard:?}"
    );
    meanwhile(
        || drop(subscription),
        || {
            let (call, body) = server.call(procedure::CONNECT_SECRET_EVENT_DEREGISTER_ANY);
            assert_eq!(decode(&body), Ok(Number { number: 7 }));
            server.reply(call, &());
        },
    );
    assert!(events.recv().is_err(), "the sink is gone");
}

#[test]
fn a_refused_registration_leaves_nothing() {
    let (client, mut server) = Fake::with_client(NEVER);
    let subscribe = || client.subscribe(EventKind::ValueChanged, Some(ONE), Box::new(|_| {})).unwrap_err();
    let error = meanwhile(subscribe, || {
        let (call, _) = server.call(procedure::CONNECT_SECRET_EVENT_REGISTER_ANY);
        server.send(&refusal(call, &Error::already_subscribed()));
    });
    assert_eq!(error, Error::already_subscribed());
}

#[test]
fn pings_are_answered_amid_calls() {
    let (client, mut server) = Fake::with_client(NEVER);
    meanwhile(
        || client.undefine(ONE).unwrap(),
        || {
            let (call, _) = server.call(procedure::SECRET_UNDEFINE);
            for _ in 0..3 {
                server.send(&Beat::Ping.packet());
                assert_eq!(Beat::of(&server.packet().0), Some(Beat::Pong));
            }
            server.reply(call, &());
        },
    );
}

#[test]
fn a_silent_server_is_pinged_five_times_and_given_up() {
    let (client, mut server) = Fake::with_client(Duration::from_millis(20));
    client.wire.keep_alive();
    let (_subscription, events) = subscribed(&client, &mut server, 0);
    for _ in 0..5 {
        assert_eq!(Beat::of(&server.packet().0), Some(Beat::Ping));
    }
    assert!(events.recv().is_err());
    let error = client.num_of_secrets().unwrap_err();
    assert_eq!(error.to_string(), "internal error: connection closed due to keepalive timeout");
}

#[test]
fn a_server_that_answers_pings_is_kept() {
    let (client, mut server) = Fake::with_client(Duration::from_millis(5));
    client.wire.keep_alive();
    for _ in 0..12 {
        assert_eq!(Beat::of(&server.packet().0), Some(Beat::Ping));
        server.send(&Beat::Pong.packet());
    }
    drop(server);
    is_lost(&client.num_of_secrets().unwrap_err());
}

#[test]
fn the_end_amid_a_reply_is_told_to_all() {
    let (client, mut server) = Fake::with_client(NEVER);
    let (_subscription, events) = subscribed(&client, &mut server, 0);
    thread::scope(|scope| {
        let calls: Vec<_> =
            (0..3).map(|_| scope.spawn(|| client.value(ONE, NO_FLAGS).map(drop).unwrap_err())).collect();
        let (call, _) = server.call(procedure::SECRET_GET_VALUE);
        for _ in 1..calls.len() {
            server.call(procedure::SECRET_GET_VALUE);
        }
        let reply = packet(call.reply(Status::Ok), &Value(&[5; 1000]));
        server.send(&reply[..500]);
        drop(server);
        calls.into_iter().for_each(|call| is_lost(&call.join().unwrap()));
    });
    assert!(events.recv().is_err(), "who waits for events must learn of it");
    is_lost(&client.num_of_secrets().unwrap_err());
    is_lost(&client.set_value(ONE, SecretBytes::copy_of(b"x").unwrap(), NO_FLAGS).unwrap_err());
}

#[test]
fn what_is_no_protocol_ends_the_connection() {
    let head = |length: u32| [&length.to_be_bytes()[..], &[0; 24]].concat();
    for garbage in [
        head(0),
        head(4),
        head(27),
        head(33_554_437),
        head(u32::MAX),
        b"HTTP/1.1 400 Bad Request\r\n..".to_vec(),
    ] {
        let (client, mut server) = Fake::with_client(NEVER);
        server.send(&garbage);
        let error = client.num_of_secrets().map(drop).unwrap_err();
        assert_eq!((error.code(), error.domain()), (ErrorCode::Rpc, ErrorDomain::Rpc), "{error}");
        assert!(error.advice().unwrap().contains("is this its socket"), "{error:?}");
    }
}

#[test]
fn a_reply_to_another_call_ends_the_connection() {
    for (serial, procedure) in [(1, 0), (0, 1)] {
        let (client, mut server) = Fake::with_client(NEVER);
        let call = || client.num_of_secrets().unwrap_err();
        let error = meanwhile(call, || {
            let (mut call, _) = server.call(procedure::CONNECT_NUM_OF_SECRETS);
            call.serial += serial;
            call.procedure += procedure;
            server.reply(call, &Number { number: 1 });
        });
        assert_eq!(error.code(), ErrorCode::Rpc, "{error}");
    }
}

#[test]
fn a_reply_that_cannot_be_read_harms_its_call_alone() {
    let (client, mut server) = Fake::with_client(NEVER);
    let oversize = 65_537_u32.to_be_bytes();
    let bodies =
        [vec![], vec![0, 0], oversize.to_vec(), [&oversize[..], &[7; 65_540]].concat(), vec![0, 0, 0, 9, 1]];
    for body in bodies {
        let error = meanwhile(
            || client.value(ONE, NO_FLAGS).map(drop).unwrap_err(),
            || {
                let (call, _) = server.call(procedure::SECRET_GET_VALUE);
                let mut reply = packet(call.reply(Status::Ok), &());
                reply.extend_from_slice(&body);
                let length = u32::try_from(reply.len()).unwrap().to_be_bytes();
                reply[..4].copy_from_slice(&length);
                server.send(&reply);
            },
        );
        assert_eq!(error.to_string(), "Unable to decode message payload");
    }
    let error = meanwhile(
        || client.list_all(0).unwrap_err(),
        || {
            let (call, _) = server.call(procedure::CONNECT_LIST_ALL_SECRETS);
            server.reply(call, &16_385_u32);
        },
    );
    assert_eq!(error.to_string(), "Unable to decode message payload");
}

#[test]
fn values_of_every_size_come_and_go_whole() {
    let (client, mut server) = Fake::with_client(NEVER);
    for length in [1, 2, 3, 4, 5, 1021, MAX_VALUE] {
        let value: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        meanwhile(
            || client.set_value(ONE, SecretBytes::copy_of(&value).unwrap(), NO_FLAGS).unwrap(),
            || {
                let (call, body) = server.call(procedure::SECRET_SET_VALUE);
                assert!(decode::<SetValue<'_>>(&body).unwrap().value == Value(&value));
                server.reply(call, &());
            },
        );
        let got = meanwhile(
            || client.value(ONE, NO_FLAGS).unwrap(),
            || {
                let (call, _) = server.call(procedure::SECRET_GET_VALUE);
                server.reply(call, &Value(&value));
            },
        );
        assert!(got.expose_secret() == value, "{length}");
    }
}

#[test]
fn what_must_be_refused_is_refused_before_it_is_sent() {
    let (mut client, mut server) = Fake::with_client(NEVER);
    let error = client.set_value(ONE, SecretBytes::zeroed(MAX_VALUE + 1).unwrap(), NO_FLAGS).unwrap_err();
    assert_eq!((error.code(), error.domain()), (ErrorCode::Rpc, ErrorDomain::Remote));
    assert_eq!(error.to_string(), "value length greater than maximum: 65537 > 65536");
    let error = client.define_xml(&vec![b' '; (4 << 20) + 1], NO_FLAGS).unwrap_err();
    assert_eq!(error.to_string(), "Unable to encode message payload");
    client.read_only = true;
    for error in [
        client.define_xml(b"", NO_FLAGS).unwrap_err(),
        client.set_value(ONE, SecretBytes::zeroed(1).unwrap(), NO_FLAGS).unwrap_err(),
        client.value(ONE, NO_FLAGS).unwrap_err(),
        client.undefine(ONE).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("operation forbidden: read only access prevents virSecret"));
    }
    meanwhile(|| drop(client), || server.reply_to_close());
}

#[test]
fn a_sink_can_neither_block_nor_break_the_reader_unnoticed() {
    let (client, mut server) = Fake::with_client(NEVER);
    let client = Arc::new(client);
    let (send, receive) = mpsc::channel();
    let (inner, say) = (Arc::downgrade(&client), send);
    let sink: EventSink = Box::new(move |_| {
        let error = inner.upgrade().unwrap().num_of_secrets().unwrap_err();
        say.send(error.to_string()).unwrap();
        panic!("a sink's own fault");
    });
    let _subscription = meanwhile(
        || client.subscribe(EventKind::ValueChanged, None, sink).unwrap(),
        || {
            let (call, _) = server.call(procedure::CONNECT_SECRET_EVENT_REGISTER_ANY);
            server.reply(call, &Number { number: 0 });
        },
    );
    server.event(
        procedure::SECRET_EVENT_VALUE_CHANGED,
        &ValueChangedEvent { callback: 0, secret: secret(ONE) },
    );
    assert!(receive.recv().unwrap().contains("from within an event's sink"));
    assert!(receive.recv().is_err(), "the sink is dropped");
    is_lost(&client.num_of_secrets().unwrap_err());
}

#[test]
fn a_sink_may_end_its_subscription_while_the_server_does_not_read() {
    let (client, mut server) = Fake::with_client(NEVER);
    let own: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let (end, (send, ended)) = (Arc::clone(&own), mpsc::channel());
    let sink: EventSink = Box::new(move |_| {
        drop(end.lock().unwrap().take());
        send.send(()).unwrap();
    });
    let subscription = meanwhile(
        || client.subscribe(EventKind::Lifecycle, None, sink).unwrap(),
        || {
            let (call, _) = server.call(procedure::CONNECT_SECRET_EVENT_REGISTER_ANY);
            server.reply(call, &Number { number: 1 });
        },
    );
    *own.lock().unwrap() = Some(subscription);
    let (_other, events) = subscribed(&client, &mut server, 2);
    let zeros = client.wire.fill_up();
    for callback in [1, 2] {
        let event = LifecycleEvent { callback, secret: secret(TWO), event: 1, detail: 0 };
        server.event(procedure::SECRET_EVENT_LIFECYCLE, &event);
    }
    if ended.recv_timeout(PATIENCE).is_err() || events.recv_timeout(PATIENCE).is_err() {
        drop(server); // or nothing would ever end
        panic!("the reader waits for the server to read");
    }

    // It reads again, and hears what was owed meanwhile, whatever comes first.
    server.0.read_exact(&mut vec![0; zeros]).unwrap();
    server.send(&Beat::Ping.packet());
    let (call, body) = server.call(procedure::CONNECT_SECRET_EVENT_DEREGISTER_ANY);
    assert_eq!(decode(&body), Ok(Number { number: 1 }));
    server.reply(call, &());
    assert_eq!(Beat::of(&server.packet().0), Some(Beat::Pong));
    drop(server);
}

#[test]
fn nobody_who_leaves_waits_for_a_server_that_does_not_read() {
    let (client, mut server) = Fake::with_client(NEVER);
    let (subscription, _events) = subscribed(&client, &mut server, 0);
    client.wire.fill_up();
    let (send, gone) = mpsc::channel();
    let sender = send.clone();
    thread::spawn(move || {
        drop(subscription); // waits for room, until the other one ends the connection
        sender.send(()).unwrap();
    });
    thread::spawn(move || {
        drop(client);
        send.send(()).unwrap();
    });
    for _ in 0..2 {
        gone.recv_timeout(PATIENCE).expect("it waits for the server to read");
    }
    drop(server);
}

#[test]
fn a_layer_may_come_between_two_calls() {
    let (client, mut server) = Fake::with_client(NEVER);
    let count = || client.num_of_secrets().unwrap();
    let clear = meanwhile(count, || {
        let (call, _) = server.call(procedure::CONNECT_NUM_OF_SECRETS);
        server.reply(call, &Number { number: 1 });
    });
    client.wire.secure(toy(20));
    let layered = meanwhile(count, || {
        let expected = packet(
            crate::rpc::Header {
                program: crate::rpc::program::REMOTE,
                version: crate::rpc::VERSION,
                procedure: procedure::CONNECT_NUM_OF_SECRETS,
                kind: crate::rpc::Kind::Call,
                serial: 1,
                status: Status::Ok,
            },
            &(),
        );
        let expected = sealed(&expected, 20);
        let mut call = vec![0; expected.len()];
        server.0.read_exact(&mut call).unwrap();
        assert_eq!(call, expected);
        let header: crate::rpc::Header = decode(&clear_of(&call)[4..]).unwrap();
        server.send(&sealed(&packet(header.reply(Status::Ok), &Number { number: 2 }), 9));
    });
    assert_eq!((clear, layered), (1, 2));
    server.send(b"\xFF\xFF\xFF\xFF");
    let error = client.num_of_secrets().unwrap_err();
    assert_eq!(error.to_string(), "the encrypted stream is broken: too long");
}

/// What these records of 20 bytes hold.
fn clear_of(records: &[u8]) -> Vec<u8> {
    records.chunks(24).flat_map(|record| record[4..].iter().map(|byte| !byte)).collect()
}

#[test]
fn the_way_in_is_libvirts() {
    let (client, mut server) = Fake::with_client(NEVER);
    let entered = meanwhile(
        || open::enter(&client.wire, &route(), true, None).unwrap(),
        || {
            let (call, body) = server.call(procedure::AUTH_LIST);
            assert_eq!((call.serial, body.len()), (0, 0));
            server.reply(call, &AuthTypes { types: List(vec![2]) });
            let (call, _) = server.call(procedure::AUTH_POLKIT);
            server.reply(call, &Number { number: 1 });
            let (call, body) = server.call(procedure::CONNECT_SUPPORTS_FEATURE);
            assert_eq!(decode(&body), Ok(Number { number: 10 }));
            server
                .send(&refusal(call, &Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "unknown procedure: 60")));
            let (call, body) = server.call(procedure::CONNECT_OPEN);
            assert_eq!(decode(&body), Ok(Open { name: Some(Text(b"secret:///system")), flags: 1 }));
            server.reply(call, &());
            let (call, body) = server.call(procedure::CONNECT_SUPPORTS_FEATURE);
            assert_eq!(decode(&body), Ok(Number { number: 14 }));
            server.reply(call, &Number { number: 1 });
        },
    );
    assert!(entered && !client.wire.is_kept_alive());
}

#[test]
fn who_is_not_let_in_is_told_the_next_step() {
    let denied = Error::new(ErrorCode::AuthFailed, ErrorDomain::Polkit, "access denied by policy");
    for (offered, wanted, refused, text) in [
        (vec![2], None, Some(denied), "authentication failed: access denied by policy"),
        (vec![7], None, None, "authentication failed: unsupported authentication type 7"),
        #[cfg(not(feature = "sasl"))]
        (vec![1], None, None, "authentication failed: the server wants SASL, which this build has not"),
        (
            vec![],
            Some(Authentication::Sasl(None)),
            None,
            "authentication failed: requested authentication type sasl rejected",
        ),
        (
            vec![0],
            Some(Authentication::Polkit),
            None,
            "authentication failed: requested authentication type polkit rejected",
        ),
    ] {
        let (client, mut server) = Fake::with_client(NEVER);
        let mut route = route();
        route.authentication = wanted;
        let error = meanwhile(
            || open::enter(&client.wire, &route, false, None).unwrap_err(),
            || {
                let (call, _) = server.call(procedure::AUTH_LIST);
                server.reply(call, &AuthTypes { types: List(offered) });
                if let Some(refused) = refused {
                    let (call, _) = server.call(procedure::AUTH_POLKIT);
                    server.send(&refusal(call, &refused));
                }
            },
        );
        assert_eq!(error.to_string(), text);
        assert!(error.advice().is_some(), "{error:?}");
    }
}

#[test]
fn the_token_is_shown_with_who_we_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("system.token");
    let token = SystemToken::read_or_make(&path).unwrap();
    let (client, mut server) = Fake::with_client(NEVER);
    meanwhile(
        || open::identify(&client.wire, &token).unwrap(),
        || {
            let (call, body) = server.call(procedure::CONNECT_SET_IDENTITY);
            let list: List<Parameter<'_>, 20> = decode(&body).unwrap();
            let value = |name: &str| {
                list.0.iter().find(|it| it.name == Text::from(name)).unwrap_or_else(|| panic!("{name}")).value
            };
            assert!(value("process-id") == Typed::LLong(std::process::id().into()));
            assert!(matches!(value("process-time"), Typed::ULLong(1..)));
            assert!(value("unix-user-id") == Typed::ULLong(rustix::process::geteuid().as_raw().into()));
            assert!(matches!(value("unix-group-id"), Typed::ULLong(_)));
            assert!(value("system.token") == Typed::String(Text(&std::fs::read(&path).unwrap())));
            server.reply(call, &());
        },
    );
    let error = client.elevated().err().unwrap();
    assert!(error.to_string().contains("'/nonexistent/token'"), "{error}");
    assert!(error.advice().unwrap().contains("that user"));
}
