//! SASL at the client: chooses a mechanism, answers its questions, and gives the layer that it leaves behind.
//!
//! A question is answered by `auth.conf`, then by the URI, then by whoever can be asked ([`Ask`]). Leans on `net` for Cyrus
//! itself. Refuses, on bare TCP, a server that would have less than 56 bits; and to be done before the mechanism says that
//! it has proved the server too.

use std::fmt::Display;

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
    let mut client = Client::new(&link.host, link.around, link.local, link.remote)
        .map_err(|error| answers.failed("create SASL client context", error))?;
    let (chosen, first) = client
        .start(&offered, &mut |prompt| answers.answer(prompt))
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
            next = client
                .step(heard, &mut |prompt| answers.answer(prompt))
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
            empty => empty.insert(Credentials::find(self.link)?),
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
            "run it where somebody can be asked, or write name and password to auth.conf, for {group}"
        ))
    }
}

/// Cyrus's error.
fn about(doing: impl Display, error: &SaslError) -> Error {
    let detail = format!("Failed to {doing}: {} ({error})", error.code);
    let told = Error::new(ErrorCode::AuthFailed, ErrorDomain::Rpc, detail);
    match error.detail.contains("GSSAPI") {
        true => told.advise("get a Kerberos ticket with kinit, and see it with klist"),
        false => told,
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
