//! polkit's answers, on a bus of our own: Debian's dbus-daemon in a temporary directory, and an authority there that says
//! what the test tells it to. The machine's own bus isn't touched.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zbus::OwnedVariant;

use super::*;

/// A bus that ends with the test.
struct Bus {
    directory: TempDir,
    daemon: Child,
}

impl Bus {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemon = start_daemon(directory.path());
        Self { directory, daemon }
    }

    fn address(&self) -> String {
        address(self.directory.path())
    }

    fn stop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }

    /// Polkit as the daemon has it, but for the address.
    fn polkit(&self) -> Polkit {
        Polkit { address: Some(self.address()), ..Polkit::new() }
    }

    /// Gives the bus an authority.
    async fn authority(&self, answer: Answer) -> (Connection, UnboundedReceiver<Heard>) {
        let (heard, hears) = unbounded_channel();
        let authority = Builder::address(self.address().as_str())
            .serve_at("/org/freedesktop/PolicyKit1/Authority", Authority { answer, heard })
            .name("org.freedesktop.PolicyKit1")
            .build()
            .await;
        (authority.unwrap(), hears)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        _ = self.daemon.kill();
        _ = self.daemon.wait();
    }
}

fn address(directory: &Path) -> String {
    format!("unix:path={}/bus", directory.display())
}

fn start_daemon(directory: &Path) -> Child {
    let config = directory.join("bus.conf");
    let text = format!(
        "<busconfig><type>custom</type><listen>{}</listen><auth>EXTERNAL</auth><policy context='default'>\
         <allow own='*'/><allow send_destination='*'/><allow receive_sender='*'/><allow user='*'/>\
         </policy></busconfig>",
        address(directory)
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null()) // it complains of limits that it may not raise
        .spawn()
        .expect("dbus-daemon, from the package dbus-daemon");
    // It prints the address once it listens.
    let mut printed = String::new();
    BufReader::new(daemon.stdout.as_mut().unwrap()).read_line(&mut printed).unwrap();
    assert!(printed.starts_with("unix:path="), "{printed}");
    daemon
}

/// What the authority was asked, as it came over the wire.
#[derive(Debug)]
enum Heard {
    Check {
        sender: String,
        kind: String,
        subject: HashMap<String, OwnedVariant>,
        action: String,
        details: HashMap<String, String>,
        flags: u32,
        id: String,
    },
    Cancel(String),
}

#[derive(Clone)]
enum Answer {
    Yes,
    No,
    Challenge,
    Dismissed,
    Fails(&'static str),
    /// The person is at the coffee machine.
    Never,
}

struct Authority {
    answer: Answer,
    heard: UnboundedSender<Heard>,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.PolicyKit1.Error")]
enum AuthorityError {
    #[zbus(error)]
    ZBus(zbus::Error),
    Failed(String),
    Cancelled(String),
    NotAuthorized(String),
}

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        details: HashMap<String, String>,
        flags: u32,
        id: String,
        #[zbus(header)] header: zbus::message::Header<'_>,
    ) -> Result<(bool, bool, HashMap<String, String>), AuthorityError> {
        let sender = header.sender().unwrap().to_string();
        let (kind, subject) = subject;
        self.heard.send(Heard::Check { sender, kind, subject, action, details, flags, id }).unwrap();
        let detail = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
        match self.answer {
            Answer::Yes => Ok((true, false, HashMap::new())),
            Answer::No => Ok((false, false, detail("polkit.dismissed", ""))),
            Answer::Challenge => {
                Ok((false, true, detail("polkit.retains_authorization_after_challenge", "1")))
            }
            Answer::Dismissed => Ok((false, true, detail("polkit.dismissed", "true"))),
            Answer::Fails("Cancelled") => Err(AuthorityError::Cancelled("taken back".into())),
            Answer::Fails("NotAuthorized") => Err(AuthorityError::NotAuthorized("not trusted".into())),
            Answer::Fails(_) => Err(AuthorityError::Failed("Action is not registered".into())),
            Answer::Never => std::future::pending().await,
        }
    }

    async fn cancel_check_authorization(&self, id: String) {
        self.heard.send(Heard::Cancel(id)).unwrap();
    }
}

fn peer() -> Process {
    Process { pid: Some(4711), uid: 4_000_000_000, gid: 100, start_time: Some(0x1_0000_0001) }
}

/// libvirt's code and domain.
fn numbers(refusal: &Refusal) -> (i32, i32) {
    let error = Error::from(refusal.clone());
    (error.code().number(), error.domain().number())
}

#[tokio::test]
async fn polkit_is_told_who_asks_for_what() {
    let bus = Bus::start();
    let (_authority, mut hears) = bus.authority(Answer::Yes).await;
    let polkit = bus.polkit();
    for asked in [MANAGE, MONITOR] {
        assert_eq!(polkit.check(&peer(), asked).await, Ok(()));
        let heard = hears.recv().await.unwrap();
        let Heard::Check { kind, subject, action, details, flags, id, .. } = heard else {
            panic!("{heard:?}")
        };
        assert_eq!((kind.as_str(), action.as_str(), flags), ("unix-process", asked, 1));
        assert!(details.is_empty() && !id.is_empty(), "{details:?} {id}");
        assert_eq!(subject.len(), 3, "{subject:?}");
        let signature = |key: &str| subject[key].value_signature().to_string();
        assert_eq!(
            (signature("pid"), signature("start-time"), signature("uid")),
            ("u".into(), "t".into(), "i".into())
        );
        assert_eq!(u32::try_from(subject["pid"].try_clone().unwrap()), Ok(4711));
        assert_eq!(u64::try_from(subject["start-time"].try_clone().unwrap()), Ok(0x1_0000_0001));
        assert_eq!(i32::try_from(subject["uid"].try_clone().unwrap()), Ok(4_000_000_000_u32 as i32));
    }
}

#[tokio::test]
async fn each_answer_is_told_as_libvirt_tells_it() {
    let no_agent = "no polkit agent available to authenticate action 'org.libvirt.unix.manage'";
    let cases = [
        (Answer::No, 45, 60, "access denied by policy"),
        (Answer::Challenge, 94, 60, no_agent),
        (Answer::Dismissed, 79, 60, "user cancelled authentication process"),
        (Answer::Fails("Cancelled"), 79, 60, "user cancelled authentication process"),
        (Answer::Fails("Failed"), 1, 60, "Action is not registered"),
        (Answer::Fails("NotAuthorized"), 1, 60, "org.freedesktop.policykit.owner"),
    ];
    let bus = Bus::start();
    let polkit = bus.polkit();
    for (answer, code, domain, text) in cases {
        let (authority, _hears) = bus.authority(answer).await;
        let refusal = polkit.check(&peer(), MANAGE).await.unwrap_err();
        assert_eq!(numbers(&refusal), (code, domain), "{refusal}");
        assert!(refusal.to_string().contains(text), "{refusal}");
        let told = refusal.for_log();
        assert!(told.starts_with(&refusal.to_string()) && told.contains("; "), "no next step: {told}");
        authority.release_name("org.freedesktop.PolicyKit1").await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_cannot_be_told_apart_is_refused_without_asking() {
    let bus = Bus::start();
    let (_authority, mut hears) = bus.authority(Answer::Yes).await;
    for unknown in [Process { pid: None, ..peer() }, Process { start_time: None, ..peer() }] {
        let refusal = bus.polkit().check(&unknown, MANAGE).await.unwrap_err();
        assert_eq!(numbers(&refusal), (1, 60), "{refusal}");
    }
    assert!(hears.try_recv().is_err());
}

#[tokio::test]
async fn a_host_without_a_bus_or_without_polkit_says_so() {
    let nowhere = tempfile::tempdir().unwrap();
    let polkit = Polkit { address: Some(address(nowhere.path())), ..Polkit::new() };
    let refusal = polkit.check(&peer(), MANAGE).await.unwrap_err();
    assert_eq!(numbers(&refusal), (1, 47), "{refusal}");
    assert!(refusal.to_string().starts_with("Unable to get system bus connection: "), "{refusal}");

    let bus = Bus::start();
    let refusal = bus.polkit().check(&peer(), MANAGE).await.unwrap_err();
    assert_eq!(numbers(&refusal), (1, 60), "{refusal}");
    assert!(refusal.to_string().contains("install polkitd"), "{refusal}");
}

#[tokio::test]
async fn a_bus_that_is_silent_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let _silent = std::os::unix::net::UnixListener::bind(directory.path().join("bus")).unwrap();
    let patience = Duration::from_millis(50);
    let polkit = Polkit { address: Some(address(directory.path())), patience, ..Polkit::new() };
    let peer = peer();
    let (one, two) = tokio::join!(polkit.check(&peer, MANAGE), polkit.check(&peer, MANAGE));
    for refusal in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(refusal, Refusal::NoBus("no answer within 50 ms".into()));
    }
}

#[tokio::test]
async fn the_connection_is_kept_and_made_anew_with_the_bus() {
    let sender = |heard: Heard| match heard {
        Heard::Check { sender, .. } => sender,
        Heard::Cancel(_) => panic!("{heard:?}"),
    };
    let mut bus = Bus::start();
    let polkit = bus.polkit();
    let (_authority, mut hears) = bus.authority(Answer::Yes).await;
    for _ in 0..2 {
        polkit.check(&peer(), MANAGE).await.unwrap();
    }
    assert_eq!(sender(hears.recv().await.unwrap()), sender(hears.recv().await.unwrap()));

    bus.stop();
    let refusal = polkit.check(&peer(), MANAGE).await.unwrap_err();
    assert_eq!(numbers(&refusal).1, 47, "{refusal}");
    bus.daemon = start_daemon(bus.directory.path());
    let (_authority, mut hears) = bus.authority(Answer::Yes).await;
    polkit.check(&peer(), MANAGE).await.unwrap();
    assert!(matches!(hears.recv().await, Some(Heard::Check { .. })));
}

/// The bus goes while the person is thinking: the question is put again, to the one that comes in its place.
#[tokio::test]
async fn a_question_lost_with_the_bus_is_asked_once_more() {
    let mut bus = Bus::start();
    let polkit = bus.polkit();
    let (_authority, mut hears) = bus.authority(Answer::Never).await;
    let peer = peer();
    let check = polkit.check(&peer, MANAGE);
    let restart = async {
        assert!(matches!(hears.recv().await, Some(Heard::Check { .. })));
        // Nothing is awaited from here on, so the question is still being asked when the new bus is there. But polkit
        // isn't yet.
        bus.stop();
        bus.daemon = start_daemon(bus.directory.path());
    };
    let (checked, ()) = tokio::join!(check, restart);
    let refusal = checked.unwrap_err();
    assert!(refusal.to_string().contains("install polkitd"), "{refusal}");
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_taken_back() {
    let bus = Bus::start();
    let (_authority, mut hears) = bus.authority(Answer::Never).await;
    let polkit = bus.polkit();
    let peer = peer();
    let asked = tokio::select! {
        answer = polkit.check(&peer, MANAGE) => panic!("{answer:?}"),
        heard = hears.recv() => heard.unwrap(),
    };
    let Heard::Check { id: asked, .. } = asked else { panic!("{asked:?}") };
    let heard = hears.recv().await.unwrap();
    let Heard::Cancel(cancelled) = heard else { panic!("{heard:?}") };
    assert_eq!(cancelled, asked);
}

#[tokio::test]
async fn a_person_who_takes_their_time_holds_nobody_up() {
    let bus = Bus::start();
    let (authority, mut hears) = bus.authority(Answer::Never).await;
    let patience = Duration::from_secs(30);
    let polkit = Polkit { patience, ..bus.polkit() };
    let peer = peer();
    let slow = polkit.check(&peer, MANAGE);
    let quick = async {
        assert!(matches!(hears.recv().await, Some(Heard::Check { .. })));
        authority.release_name("org.freedesktop.PolicyKit1").await.unwrap();
        let (_authority, _hears) = bus.authority(Answer::Yes).await;
        polkit.check(&peer, MONITOR).await.unwrap();
    };
    tokio::select! {
        answer = slow => panic!("{answer:?}"),
        () = quick => {}
    }
}
