//! CONNECT_SET_IDENTITY: for whom another daemon speaks, and whether it is one of the host's own.
//!
//! All that the secret driver takes from it is the system token, which opens private values; the rest is checked and
//! let go, as there is no per-call access control here yet. Leans on `parameters` for what may be said. Refuses nothing
//! else: a wrong token is no error, it just opens nothing.

use super::parameters;
use crate::rpc::Text;
use crate::rpc::typed::{Parameter, Typed};
use crate::rpc::xdr::{Decode, List, Malformed, Reader};
use crate::secret::Error;

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

/// Checks the parameters; gives the system token, if it is among them.
pub(super) fn token<'a>(asked: &SetIdentity<'a>) -> Result<Option<&'a [u8]>, Error> {
    parameters::check(&asked.parameters.0, PARAMETERS)?;
    Ok(asked.parameters.0.iter().find_map(|parameter| match parameter {
        Parameter { name: Text(TOKEN), value: Typed::String(token) } => Some(token.0),
        _ => None,
    }))
}

/// The most parameters that a call may have (libvirt's REMOTE_CONNECT_IDENTITY_PARAMS_MAX).
const MAX_PARAMETERS: usize = 20;

const TOKEN: &[u8] = b"system.token";

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
    ("system.token", "string"),
];

#[cfg(test)]
mod tests {
    use super::*;

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
}
