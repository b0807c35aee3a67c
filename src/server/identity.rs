//! CONNECT_SET_IDENTITY: for whom another daemon speaks, and whether it is one of the host's own.
//!
//! All that the secret driver takes from it is the system token, which opens private values; the rest is checked and
//! let go, as there is no per-call access control here yet. Leans on `rpc`. Refuses unknown parameters, wrong types
//! and repetitions, in libvirt's words.

use crate::rpc::typed::{MAX_NAME, Parameter, Typed};
use crate::rpc::xdr::{Decode, List, Malformed, Reader};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// What CONNECT_SET_IDENTITY asks.
pub(super) struct SetIdentity<'a> {
    parameters: List<Parameter<'a>, MAX_PARAMETERS>,
}

impl<'a> Decode<'a> for SetIdentity<'a> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let parameters = List::decode(from)?;
        u32::decode(from)?; // flags: libvirt looks at none
        Ok(Self { parameters })
    }
}

/// Checks the parameters; gives the system token, if it is among them. Of several mistakes libvirt reports names that are
/// too long first, then, in the order of the names, repetitions, unknown names and wrong types.
pub(super) fn token<'a>(asked: &SetIdentity<'a>) -> Result<Option<&'a [u8]>, Error> {
    let mut parameters: Vec<&Parameter<'a>> = asked.parameters.0.iter().collect();
    if let Some(long) = parameters.iter().find(|parameter| parameter.name.0.len() > MAX_NAME) {
        let name = long.name.to_text();
        let detail = format!("parameter {name} too big for destination");
        return Err(Error::new(ErrorCode::InternalError, ErrorDomain::None, detail));
    }
    parameters.sort_by_key(|parameter| parameter.name.0);
    let mut token = None;
    for (at, parameter) in parameters.iter().enumerate() {
        let name = parameter.name.to_text();
        if at > 0 && parameters[at - 1].name == parameter.name {
            return Err(invalid(format!("parameter '{name}' occurs multiple times")));
        }
        let Some((_, wanted)) = PARAMETERS.iter().find(|(known, _)| *known == name) else {
            let detail = format!("parameter '{name}' not supported");
            return Err(Error::new(ErrorCode::ArgumentUnsupported, ErrorDomain::None, detail));
        };
        let sent = parameter.value.type_name();
        if sent != *wanted {
            return Err(invalid(format!(
                "invalid type '{sent}' for parameter '{name}', expected '{wanted}'"
            )));
        }
        if let (TOKEN, Typed::String(text)) = (name.as_str(), parameter.value) {
            token = Some(text.0);
        }
    }
    Ok(token)
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorCode::InvalidArg, ErrorDomain::None, detail)
}

/// The most parameters that a call may have (libvirt's REMOTE_CONNECT_IDENTITY_PARAMS_MAX).
const MAX_PARAMETERS: usize = 20;

const TOKEN: &str = "system.token";

/// What an identity may say, and as which type.
const PARAMETERS: &[(&str, &str)] = &[
    ("user-name", "string"),
    ("unix-user-id", "ullong"),
    ("group-name", "string"),
    ("unix-group-id", "ullong"),
    ("process-id", "llong"),
    ("process-time", "ullong"),
    ("sasl-user-name", "string"),
    ("x509-distinguished-name", "string"),
    ("selinux-context", "string"),
    (TOKEN, "string"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Text;

    fn judge(parameters: &[(&'static str, Typed<'static>)]) -> Result<Option<Vec<u8>>, String> {
        let parameters =
            parameters.iter().map(|(name, value)| Parameter { name: Text(name.as_bytes()), value: *value });
        let asked = SetIdentity { parameters: List(parameters.collect()) };
        token(&asked).map(|token| token.map(<[u8]>::to_vec)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_token_is_found_among_what_daemons_send() {
        let sent = [
            ("process-id", Typed::LLong(7)),
            ("process-time", Typed::ULLong(9)),
            ("user-name", Typed::String(Text(b"root"))),
            ("unix-user-id", Typed::ULLong(0)),
            ("system.token", Typed::String(Text(b"0123"))),
        ];
        assert_eq!(judge(&sent), Ok(Some(b"0123".to_vec())));
        assert_eq!(judge(&sent[..4]), Ok(None));
        assert_eq!(judge(&[]), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said_in_libvirts_words() {
        assert_eq!(
            judge(&[("shoe-size", Typed::Int(7))]),
            Err("argument unsupported: parameter 'shoe-size' not supported".into())
        );
        assert_eq!(
            judge(&[("process-id", Typed::Int(7))]),
            Err("invalid argument: invalid type 'int' for parameter 'process-id', expected 'llong'".into())
        );
        let twice = ("user-name", Typed::String(Text(b"a")));
        assert_eq!(
            judge(&[twice, twice]),
            Err("invalid argument: parameter 'user-name' occurs multiple times".into())
        );
    }
}
