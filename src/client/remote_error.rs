//! An error from the wire, as the caller gets it.
//!
//! Leans on `rpc` for the body. Refuses to translate: code, domain and message stay as the server sent them, unknown
//! numbers too. The one exception is libvirt's own: a call that the server doesn't know is a call that isn't supported.

use crate::rpc::decode;
use crate::rpc::remote::ErrorBody;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// The error in the body of a reply.
pub(super) fn read(body: &[u8]) -> Error {
    let Ok(body) = decode::<ErrorBody<'_>>(body) else {
        return Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "Unable to decode error message payload");
    };
    let (code, domain) = (ErrorCode::from_number(body.code), ErrorDomain::from_number(body.domain));
    let message = body.message.map_or_else(|| UNKNOWN.to_owned(), |message| message.to_text());
    let code = match (code, domain) {
        (ErrorCode::Rpc, ErrorDomain::Rpc | ErrorDomain::Remote)
            if body.level == LEVEL_ERROR && message.starts_with("unknown procedure") =>
        {
            ErrorCode::NoSupport
        }
        _ => code,
    };
    let errno = (code == ErrorCode::SystemError && body.int1 > 0).then_some(body.int1);
    Error::reported(code, domain, &message, errno)
}

/// What libvirt says for an error without a message.
const UNKNOWN: &str = "An error occurred, but the cause is unknown";

const LEVEL_ERROR: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::fault::refusal;
    use crate::rpc::packet::HEAD;
    use crate::rpc::xdr::Text;
    use crate::rpc::{Encode, Header, Kind, Status};
    use crate::secret::Detail;

    fn body(code: i32, domain: i32, message: Option<&'static str>, int1: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        ErrorBody {
            code,
            domain,
            message: message.map(Text::from),
            level: LEVEL_ERROR,
            guest: None,
            str1: None,
            str2: None,
            str3: None,
            int1,
            int2: -1,
            network: None,
        }
        .encode(&mut bytes);
        bytes
    }

    #[test]
    fn numbers_and_text_come_through_as_they_were_sent() {
        for (code, domain, message) in [
            (66, 30, "Secret not found: no secret with matching uuid 'x'"),
            (88, 55, "access denied: 'secret' denied access"),
            (8, 30, "unsupported flags (0x2) in function secretDefineXML"),
            (39, 7, "authentication required"),
            (4711, 99, "something that nobody has heard of yet"),
            (-1, -1, ""),
        ] {
            let error = read(&body(code, domain, Some(message), -1));
            assert_eq!((error.code().number(), error.domain().number()), (code, domain));
            assert_eq!(error.to_string(), message);
        }
        assert_eq!(
            read(&body(38, 30, Some("cannot: No space left on device"), 28)).shape(),
            &Detail::System { errno: 28 }
        );
        assert_eq!(read(&body(1, 7, None, -1)).to_string(), UNKNOWN);
    }

    #[test]
    fn a_call_that_the_server_does_not_know_is_not_supported() {
        let error = read(&body(39, 7, Some("unknown procedure: 999"), -1));
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (ErrorCode::NoSupport, "unknown procedure: 999")
        );
        assert_eq!(read(&body(39, 30, Some("unknown procedure: 999"), -1)).code(), ErrorCode::Rpc);
    }

    #[test]
    fn our_own_errors_come_back_the_same() {
        let call =
            Header { program: 1, version: 1, procedure: 1, kind: Kind::Call, serial: 1, status: Status::Ok };
        for error in [Error::private(), Error::no_such_usage("x"), Error::already_subscribed()] {
            assert_eq!(read(&refusal(call, &error)[HEAD..]), error);
        }
    }

    #[test]
    fn what_is_no_error_is_one() {
        assert_eq!(read(b"\0\0").code(), ErrorCode::Rpc);
    }
}
