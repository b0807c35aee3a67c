//! SASL at the client: chooses a mechanism, answers its questions, and gives the layer that it leaves behind.
//!
//! A question is answered by `auth.conf`, then by the URI, then by whoever can be asked ([`Ask`]). Leans on `net` for Cyrus
//! itself. Refuses, on bare TCP, a server that would have less than 56 bits; and to be done before the mechanism says that
//! it has proved the server too.

use std::fmt::Display;
use std::time::Instant;

use secrecy::ExposeSecret;

use super::credentials::Credentials;
use super::link::Link;
use super::wire::{Wire, undecodable};
use super::{Ask, Question, read};
use crate::memory::SecretBytes;
use crate::net::layer::Layer;
use crate::net::sasl::{Client, Prompt, SaslError, Step, Want};
use crate::rpc::Text;
use crate::rpc::remote::{Line, Said, SaslReply, SaslStart, procedure};
use crate::rpc::xdr::{Chars, Malformed};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Authenticates, by this mechanism or by the best that both sides have. What it gives encrypts all that follows.
pub(super) fn authenticate(
    wire: &Wire,
    mechanism: Option<&str>,
    link: &Link,
    ask: Option<&dyn Ask>,
) -> Result<Option<Layer>, Error> {
    let reply = wire.call(procedure::AUTH_SASL_INIT, &()).map_err(refused)?;
    let offered = read::<Line<'_>>(&reply)?.text.to_text();
    let offered = match mechanism {
        Some(wanted) if offered.split([',', ' ']).any(|it| it.eq_ignore_ascii_case(wanted)) => {
            wanted.to_owned()
        }
        Some(wanted) => {
            let detail = format!("SASL mechanism {wanted} not supported by server");
            return Err(failed(detail).advise(format!("it has {offered}")));
        }
        None => offered,
    };
    let mut answers = Answers { link, ask, credentials: None, failure: None };
    let mut client = ours(wire, || Client::new(&link.host, link.around, link.local, link.remote))
        .map_err(|error| answers.failed("create SASL client context", error))?;
    let (chosen, first) = ours(wire, || client.start(&offered, &mut |prompt| answers.answer(prompt)))
        .map_err(|error| answers.failed("start SASL negotiation", error))?;
    let start = SaslStart { mechanism: Text::from(chosen.as_str()), said: said(&first)? };
    let mut reply = wire.call_in_secret(procedure::AUTH_SASL_START, &start).map_err(refused)?;
    let mut done = first.complete;
    for _ in 0..MOST_STEPS {
        let SaslReply { complete, said: heard } = read(&reply)?;
        let heard = heard.to_secret()?;
        let mut next = Step { complete: true, data: None };
        if !done {
            let heard = heard.as_ref().map(|heard| heard.expose_secret());
            next = ours(wire, || client.step(heard, &mut |prompt| answers.answer(prompt)))
                .map_err(|error| answers.failed("step SASL negotiation", error))?;
            done = next.complete;
        }
        match (done, complete != 0) {
            (true, true) => return finish(client, link),
            (_, false) => {
                reply = wire.call_in_secret(procedure::AUTH_SASL_STEP, &said(&next)?).map_err(refused)?;
            }
            (false, true) => return Err(failed("the server has ended the negotiation early".to_owned())),
        }
    }
    Err(failed("the server doesn't come to an end with the negotiation".to_owned()))
}

/// What is for us to do, for a person, or for a realm's KDC: of the server's time it takes nothing.
fn ours<T>(wire: &Wire, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    if let Some(patience) = wire.patience().as_mut() {
        patience.excuse(begun.elapsed());
    }
    done
}

fn finish(client: Client, link: &Link) -> Result<Option<Layer>, Error> {
    let done = client.finish().map_err(|error| about("finish SASL negotiation", &error))?;
    if !link.around.is_enough(done.ssf) {
        return Err(failed(format!("negotiation SSF {} was not strong enough", done.ssf))
            .advise("over TCP use a mechanism that encrypts (GSSAPI), or connect by TLS"));
    }
    Ok(done.layer)
}

/// Who knows the answers.
struct Answers<'a> {
    link: &'a Link,
    ask: Option<&'a dyn Ask>,
    /// Read when something is asked: Kerberos asks nothing.
    credentials: Option<Credentials>,
    /// Why there was no answer.
    failure: Option<Error>,
}

impl Answers<'_> {
    fn answer(&mut self, prompt: &Prompt) -> Option<SecretBytes> {
        match self.find(prompt) {
            Ok(answer) => answer,
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }

    fn find(&mut self, prompt: &Prompt) -> Result<Option<SecretBytes>, Error> {
        let credentials = match &mut self.credentials {
            Some(credentials) => credentials,
            empty => {
                let Link { host, authfile, .. } = self.link;
                empty.insert(Credentials::find("libvirt", host, authfile.as_deref())?)
            }
        };
        let ready = match prompt.want {
            Want::AuthName => credentials.authname.as_ref(),
            Want::Password => credentials.password.as_ref(),
            Want::Realm => credentials.realm.as_ref(),
            Want::Open | Want::Hidden => None,
        };
        if let Some(ready) = ready {
            return Ok(Some(ready.try_clone()?));
        }
        let own = match prompt.want {
            Want::AuthName => self.link.user.as_ref(),
            Want::Realm => prompt.default.as_ref(), // the server's own
            _ => None,
        };
        if let Some(own) = own {
            return Ok(Some(SecretBytes::copy_of(own.as_bytes())?));
        }
        let text = if prompt.text.is_empty() { "The server asks" } else { &prompt.text };
        let mut question = match prompt.want {
            Want::Password | Want::Hidden => Question::hidden(text),
            Want::AuthName | Want::Realm | Want::Open => Question::open(text),
        };
        question.default.clone_from(&prompt.default);
        Ok(self.ask.and_then(|ask| ask.ask(&question)))
    }

    /// The error of a step that failed; if it did for want of an answer, that.
    fn failed(&mut self, doing: impl Display, error: SaslError) -> Error {
        if let Some(failure) = self.failure.take() {
            return failure;
        }
        if !error.is_unanswered() {
            return about(doing, &error);
        }
        let error = failed("Failed to collect auth credentials".to_owned());
        let group = format!("[auth-libvirt-{}]", self.link.host);
        error.advise(format!(
            "run it where somebody can be asked, or write authname= and password= to auth.conf, for {group}"
        ))
    }
}

/// Cyrus's error.
fn about(doing: impl Display, error: &SaslError) -> Error {
    let detail = format!("Failed to {doing}: {} ({error})", error.code);
    let told = Error::new(ErrorCode::AuthFailed, ErrorDomain::Rpc, detail);
    match &error.detail {
        detail if detail.contains("not found in Kerberos database") => told.advise(
            "write the host's name in the URI as its principal has it: libvirt/NAME, which addprinc makes and klist -k shows there",
        ),
        detail if detail.contains("GSSAPI") => told.advise(
            "get a Kerberos ticket with kinit, and see it with klist; if a password was to be asked for, the server offers none \
             but Kerberos (its mech_list)",
        ),
        _ => told,
    }
}

/// The server doesn't say why.
fn refused(error: Error) -> Error {
    match error.code() {
        ErrorCode::AuthFailed => error.advise(
            "the server doesn't tell why: see that name and password are right, or ask who can read its log",
        ),
        _ => error,
    }
}

fn failed(detail: String) -> Error {
    Error::new(ErrorCode::AuthFailed, ErrorDomain::Remote, detail)
}

fn said(step: &Step) -> Result<Said<'_>, Error> {
    let data = step.data.as_ref().map(|data| data.expose_secret());
    match data.map_or(0, <[u8]>::len) {
        ..=Chars::MAX => Ok(Said::new(data)),
        _ => Err(undecodable(Malformed)),
    }
}

/// More than any mechanism needs.
const MOST_STEPS: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::net::around::Around;
    use crate::net::sasl::Server;
    use crate::net::sasl_tests::{PASSWORD, World, host_name, world};
    use crate::rpc::packet::{HEAD, packet_length};
    use crate::rpc::{Header, Status, decode, fault, packet};

    /// A server that knows nothing but SASL.
    fn serve(mut stream: UnixStream, around: Around) {
        let mut server = None;
        loop {
            let mut word = [0; 4];
            if stream.read_exact(&mut word).is_err() {
                return;
            }
            let mut rest = vec![0; packet_length(word).unwrap() - 4];
            stream.read_exact(&mut rest).unwrap();
            let call: Header = decode(&rest).unwrap();
            let body = &rest[HEAD - 4..];
            let heard = |said: &Said<'_>| said.to_secret().unwrap().map(|it| it.expose_secret().to_vec());
            let step = match call.procedure {
                procedure::AUTH_SASL_INIT => {
                    let server = server.insert(Server::new(around, None, None).unwrap());
                    let line = Line { text: Text(server.mechanisms().as_bytes()) };
                    stream.write_all(&packet(call.reply(Status::Ok), &line)).unwrap();
                    continue;
                }
                procedure::AUTH_SASL_START => {
                    let start: SaslStart<'_> = decode(body).unwrap();
                    server.as_mut().unwrap().start(&start.mechanism.to_text(), heard(&start.said).as_deref())
                }
                procedure::AUTH_SASL_STEP => {
                    server.as_mut().unwrap().step(heard(&decode(body).unwrap()).as_deref())
                }
                _ => return,
            };
            let reply = match &step {
                Ok(step) => {
                    let reply = SaslReply { complete: i32::from(step.complete), said: said(step).unwrap() };
                    packet(call.reply(Status::Ok), &reply)
                }
                Err(_) => {
                    let error = Error::new(ErrorCode::AuthFailed, ErrorDomain::Rpc, "authentication failed");
                    fault::refusal(call, &error)
                }
            };
            stream.write_all(&reply).unwrap();
        }
    }

    /// Somebody who answers, and remembers what they were asked.
    #[derive(Default)]
    struct Person(Vec<&'static str>, Mutex<Vec<(String, bool)>>);

    impl Ask for Person {
        fn ask(&self, question: &Question) -> Option<SecretBytes> {
            let mut asked = self.1.lock().unwrap();
            asked.push((question.prompt.clone(), question.echo));
            self.0.get(asked.len() - 1).map(|answer| SecretBytes::copy_of(answer.as_bytes()).unwrap())
        }
    }

    /// How it went, in words, and whether a layer came of it.
    fn try_it(link: &Link, mechanism: Option<&str>, ask: Option<&dyn Ask>) -> Result<bool, String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let around = link.around;
        let server = thread::spawn(move || serve(theirs, around));
        let wire: Arc<Wire> = Wire::start(ours, Duration::from_secs(5)).unwrap();
        let went = authenticate(&wire, mechanism, link, ask);
        wire.hang_up();
        drop(wire);
        server.join().unwrap();
        went.map(|layer| layer.is_some()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_that_wants_sasl_is_satisfied() {
        let Some(world) = world() else {
            return World::new().run("client::sasl::tests::a_server_that_wants_sasl_is_satisfied");
        };
        let link = Link { host: host_name(), ..Link::local() };
        let scram = Some("SCRAM-SHA-256");
        let person = Person(vec!["fred", PASSWORD], Mutex::default());
        assert_eq!(try_it(&link, scram, Some(&person)), Ok(false));
        let asked = [("Please enter your authentication name", true), ("Please enter your password", false)];
        assert_eq!(*person.1.lock().unwrap(), asked.map(|(text, echo)| (text.to_owned(), echo)));

        let wrong = Person(vec!["fred", "wrong"], Mutex::default());
        let refused = Err("authentication failed: authentication failed".to_owned());
        assert_eq!(try_it(&link, scram, Some(&wrong)), refused);
        let silent = Err("authentication failed: Failed to collect auth credentials".to_owned());
        assert_eq!(try_it(&link, scram, Some(&Person::default())), silent);
        assert_eq!(try_it(&link, scram, None), silent);
        let unknown = Err("authentication failed: SASL mechanism HOPE not supported by server".to_owned());
        assert_eq!(try_it(&link, Some("HOPE"), None), unknown);

        let file = world.join("auth.conf");
        let group =
            format!("[auth-libvirt-{}]\ncredentials=x\n[credentials-x]\npassword={PASSWORD}\n", link.host);
        std::fs::write(&file, &group).unwrap();
        let named = Link { authfile: Some(file.clone()), ..link.clone() };
        let half = Person(vec!["fred"], Mutex::default());
        assert_eq!(try_it(&named, scram, Some(&half)), Ok(false), "only the name is asked for");
        let user = Link { user: Some("fred".to_owned()), ..named.clone() };
        assert_eq!(try_it(&user, scram, None), Ok(false), "the URI has the name");
        std::fs::write(&file, group + "authname=fred\n").unwrap();
        assert_eq!(try_it(&named, scram, None), Ok(false));

        let tcp = Link { around: Around::TCP, ..named };
        assert_eq!(try_it(&tcp, Some("DIGEST-MD5"), None), Ok(true));
        assert!(try_it(&tcp, scram, None).is_err());
        let best = try_it(&link, None, Some(&person)).unwrap_err();
        assert!(best.contains("Failed to start SASL negotiation: -1") && best.contains("Kerberos"), "{best}");
    }
}
