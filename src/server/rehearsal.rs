//! A conversation without sockets, for fuzzers and tests: bytes in, replies checked.
//!
//! Leans on `session` as the daemon does. Refuses nothing; panics if a promise is broken.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use secrecy::ExposeSecret;

use super::calls::{Calls, Secrets};
use super::keepalive::Keepalive;
use super::outgoing::Outgoing;
use super::session::{Action, Call, Method, Service, Session};
use crate::driver::{Caller, Driver, Keys, Root};
use crate::memory::SecretBytes;
use crate::net::peer::Peer;
use crate::net::token::SystemToken;
use crate::rpc::packet::{HEAD, packet_length};
use crate::rpc::remote::{ErrorBody, procedure};
use crate::rpc::{Decode, Header, Kind, Reader, Status, decode, program};
use crate::secret::Keystore;

/// Says these packets to a session. `socket`: bit 0 for the read-only one, bit 1 for one that asks polkit, bit 2 for a
/// peer that is root.
pub(crate) fn rehearse(socket: u8, mut bytes: &[u8]) {
    let secrets = secrets();
    let peer = Peer::new(None, if socket & 4 == 0 { 1000 } else { 0 }, 0);
    let method = if socket & 2 == 0 { Method::None } else { Method::Polkit };
    let calls = Calls::new(secrets, peer, socket & 1 != 0, Arc::new(drop));
    // A fuzzer that watches comparisons finds the value out; what the client said itself is no secret.
    let is_known = contains(bytes, PRIVATE);
    let mut session = Session::new(Service::Secrets(calls), method, peer, Keepalive::new(None, 0));
    while let Some(Ok(length)) = bytes.first_chunk().map(|word| packet_length(*word)) {
        let Some((packet, rest)) = bytes.split_at_checked(length) else { return };
        bytes = rest;
        let Ok(header) = Header::decode(&mut Reader::new(&packet[4..HEAD])) else { return };
        let was_authenticated = session.is_authenticated();
        let action = session.receive(&Call { header, arguments: &packet[HEAD..] }, Instant::now());
        match action {
            Action::Nothing => assert!(!is_call(&header), "no answer to {header:?}"),
            Action::Send(reply) => check(&header, &reply, was_authenticated, is_known),
            Action::Work(_, work) => check(&header, &work(), was_authenticated, is_known),
            Action::Last(reply) => return check(&header, &reply, was_authenticated, is_known),
            Action::AskPolkit(asked) => assert_eq!(asked, header),
            #[cfg(feature = "sasl")]
            Action::Step(..) | Action::Secure(..) => panic!("{header:?} begins SASL where there is none"),
            Action::Wait | Action::Pause | Action::Drop => {
                panic!("{header:?} is neither a reason to wait nor to go")
            }
        }
    }
}

/// A reply is this call's, can be read, and tells no private value; to a stranger it tells nothing.
fn check(call: &Header, reply: &Outgoing, was_authenticated: bool, is_known: bool) {
    let bytes: Vec<u8> = reply.rest().iter().flat_map(|part| part.iter().copied()).collect();
    let Ok(header) = Header::decode(&mut Reader::new(&bytes[4..])) else { panic!("no header in the reply") };
    assert_eq!(bytes.first_chunk().map(|word| packet_length(*word)), Some(Ok(bytes.len())));
    if call.program == program::KEEPALIVE && !is_call(call) {
        return assert_eq!((header.procedure, header.serial, bytes.len()), (2, 0, HEAD));
    }
    assert_eq!(Header { kind: header.kind, status: header.status, ..*call }, header);
    assert_eq!(header.kind, Kind::Reply);
    if header.status == Status::Error {
        let Ok(error) = decode::<ErrorBody<'_>>(&bytes[HEAD..]) else { panic!("no error in the reply") };
        assert!(error.message.is_some_and(|message| !message.0.is_empty()), "an error without a word");
    } else if !was_authenticated {
        assert!((procedure::AUTH_LIST..=procedure::AUTH_POLKIT).contains(&header.procedure), "{header:?}");
    }
    assert!(is_known || !contains(&bytes, PRIVATE), "a private value in {header:?}");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn is_call(header: &Header) -> bool {
    matches!(header.kind, Kind::Call | Kind::CallWithFds)
}

/// A keystore in which the private secret is, whatever was said before. Its directory stays behind, because nobody knows
/// when the last rehearsal was; the next process sweeps it away.
pub(super) fn secrets() -> Arc<Secrets> {
    let secrets = keystore();
    let owner = secrets.driver.session(Caller { elevated: true, ..Caller::OWNER });
    let uuid = uuid::Uuid::from_bytes([0x11; 16]);
    if !owner.value(uuid, 0).is_ok_and(|value| value.expose_secret() == PRIVATE) {
        let Ok(secret) = owner.define_xml(SECRET, 0) else { panic!("no secret") };
        let value = SecretBytes::copy_of(PRIVATE).map(|value| owner.set_value(secret.uuid, value, 0));
        assert!(matches!(value, Ok(Ok(()))), "no value");
    }
    secrets
}

fn keystore() -> Arc<Secrets> {
    static SECRETS: OnceLock<Arc<Secrets>> = OnceLock::new();
    Arc::clone(SECRETS.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("{STAGE}{}", std::process::id()));
        sweep(&std::env::temp_dir());
        _ = std::fs::remove_dir_all(&directory); // of one who had our id
        let (Ok(root), key) = (Root::embed(&directory), directory.join("host.key")) else {
            panic!("no root")
        };
        let keys = Keys { host_key: Some(key), ..Keys::default() };
        let Ok(driver) = Driver::open(root, "secret:///system".into(), &keys) else { panic!("no keystore") };
        let Ok(token) = SystemToken::read_or_make(&directory.join("token/system.token")) else {
            panic!("no token")
        };
        assert_eq!(token.expose_secret().len(), 32);
        Arc::new(Secrets { driver, paths: &["/system"], token })
    }))
}

/// Removes what rehearsals left whose processes are no more.
fn sweep(temporary: &Path) {
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(STAGE)?.parse().ok()).filter(|&pid| pid > 0);
        if pid.and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What a rehearsal's directory is called, before the process id.
const STAGE: &str = "strongroom-rehearsal-";

const SECRET: &[u8] =
    b"<secret private='yes'><uuid>11111111-1111-1111-1111-111111111111</uuid><usage type='ceph'><name>n</name></usage></secret>";

const PRIVATE: &[u8] = b"the private value that nobody may read";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_rehearsals_left_is_swept_away_and_nothing_else() {
        let at = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let stage = |who: &dyn std::fmt::Display| at.path().join(format!("{STAGE}{who}"));
        let (gone, kept) =
            (stage(&dead.id()), [stage(&std::process::id()), stage(&"x"), stage(&-1), stage(&0)]);
        for directory in kept.iter().chain([&gone]) {
            std::fs::create_dir_all(directory.join("etc")).unwrap();
        }
        sweep(at.path());
        assert!(!gone.exists() && kept.iter().all(|directory| directory.exists()));
        sweep(&at.path().join("nowhere"));
    }
}
