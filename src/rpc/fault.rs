//! How an error travels: the body of a reply that says "no".
//!
//! Leans on `secret` for what an error is. Refuses to send advice to libvirt's clients, who have no place for it; our own
//! program has: `str3`.

use super::packet::{Header, Status, packet};
use super::program;
use super::remote::ErrorBody;
use super::xdr::Text;
use crate::secret::{Detail, Error};

/// The reply that says that this call failed.
pub fn refusal(call: Header, error: &Error) -> Vec<u8> {
    let message = error.to_string();
    let format = error.format();
    let (str1, str2, int1, int2) = match error.shape() {
        Detail::Argument { function, argument } => (*function, *argument, 0, 0),
        Detail::System { errno } => ("%s", message.as_str(), *errno, -1),
        _ => (format.as_str(), error.detail(), -1, -1),
    };
    let advice = error.advice().filter(|_| call.program == program::STRONGROOM);
    let body = ErrorBody {
        code: error.code().number(),
        domain: error.domain().number(),
        message: Some(cut(&message)),
        level: LEVEL_ERROR,
        guest: None,
        str1: Some(cut(str1)),
        str2: Some(cut(str2)),
        str3: advice.map(cut),
        int1,
        int2,
        network: None,
    };
    packet(call.reply(Status::Error), &body)
}

/// No more than a string on the wire can have: a message may hold a usage id of the greatest length.
fn cut(text: &str) -> Text<'_> {
    Text(text.as_bytes().get(..Text::MAX).unwrap_or(text.as_bytes()))
}

/// The only level there is.
const LEVEL_ERROR: i32 = 2;
