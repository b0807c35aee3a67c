//! Typed parameters as calls take them: which names, of which types, each once.
//!
//! Leans on `rpc` for the parameters themselves. Refuses unknown names, wrong types and repetitions, in libvirt's words.

use crate::rpc::typed::{MAX_NAME, Parameter};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Checks parameters against the names that a call takes, each with its type. Of several mistakes libvirt reports names
/// that are too long first, then, in the order of the names, repetitions, unknown names and wrong types.
pub(super) fn check(parameters: &[Parameter<'_>], known: &[(&str, &str)]) -> Result<(), Error> {
    let mut parameters: Vec<&Parameter<'_>> = parameters.iter().collect();
    if let Some(long) = parameters.iter().find(|parameter| parameter.name.0.len() > MAX_NAME) {
        let name = long.name.to_text();
        let detail = format!("parameter {name} too big for destination");
        return Err(Error::new(ErrorCode::InternalError, ErrorDomain::None, detail));
    }
    parameters.sort_by_key(|parameter| parameter.name.0);
    for (at, parameter) in parameters.iter().enumerate() {
        let name = parameter.name.to_text();
        if at > 0 && parameters[at - 1].name == parameter.name {
            return Err(invalid(format!("parameter '{name}' occurs multiple times")));
        }
        let Some((_, wanted)) = known.iter().find(|(known, _)| *known == name) else {
            let detail = format!("parameter '{name}' not supported");
            return Err(Error::new(ErrorCode::ArgumentUnsupported, ErrorDomain::None, detail));
        };
        let sent = parameter.value.type_name();
        if sent != *wanted {
            return Err(invalid(format!(
                "invalid type '{sent}' for parameter '{name}', expected '{wanted}'"
            )));
        }
    }
    Ok(())
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorCode::InvalidArg, ErrorDomain::None, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Text;
    use crate::rpc::typed::Typed;

    fn judge(parameters: &[(&'static str, Typed<'static>)]) -> Result<(), String> {
        let of = |(name, value): &(&'static str, _)| Parameter { name: Text(name.as_bytes()), value: *value };
        let parameters: Vec<Parameter<'_>> = parameters.iter().map(of).collect();
        check(&parameters, &[("process-id", "llong"), ("user-name", "string")])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_said_in_libvirts_words() {
        assert_eq!(judge(&[]), Ok(()));
        assert_eq!(
            judge(&[("user-name", Typed::String(Text(b"a"))), ("process-id", Typed::LLong(7))]),
            Ok(())
        );
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
