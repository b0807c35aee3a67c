//! The bodies of libvirt's REMOTE program that a secret driver answers, and the numbers of its calls.
//!
//! One struct for each shape on the wire; a comment names the calls it belongs to. Leans on `xdr`, and on `memory` for what
//! may be a password. Refuses nothing of its own: enumerations are plain numbers here, because unknown ones are for the
//! receiver to judge.

use super::xdr::{Chars, List, Text, Value, body};
use crate::memory::{Exhausted, SecretBytes};
use crate::secret::MAX_LIST;

/// The numbers of the calls (and of the two events) on secrets and on the connection itself.
#[allow(missing_docs)] // the names are libvirt's own
pub mod procedure {
    pub const CONNECT_OPEN: i32 = 1;
    pub const CONNECT_CLOSE: i32 = 2;
    pub const CONNECT_GET_TYPE: i32 = 3;
    pub const CONNECT_GET_VERSION: i32 = 4;
    pub const CONNECT_GET_HOSTNAME: i32 = 59;
    pub const CONNECT_SUPPORTS_FEATURE: i32 = 60;
    pub const AUTH_LIST: i32 = 66;
    pub const AUTH_SASL_INIT: i32 = 67;
    pub const AUTH_SASL_START: i32 = 68;
    pub const AUTH_SASL_STEP: i32 = 69;
    pub const AUTH_POLKIT: i32 = 70;
    pub const CONNECT_GET_URI: i32 = 110;
    pub const CONNECT_NUM_OF_SECRETS: i32 = 139;
    pub const CONNECT_LIST_SECRETS: i32 = 140;
    pub const SECRET_LOOKUP_BY_UUID: i32 = 141;
    pub const SECRET_DEFINE_XML: i32 = 142;
    pub const SECRET_GET_XML_DESC: i32 = 143;
    pub const SECRET_SET_VALUE: i32 = 144;
    pub const SECRET_GET_VALUE: i32 = 145;
    pub const SECRET_UNDEFINE: i32 = 146;
    pub const SECRET_LOOKUP_BY_USAGE: i32 = 147;
    pub const CONNECT_IS_SECURE: i32 = 149;
    pub const CONNECT_GET_LIB_VERSION: i32 = 157;
    pub const CONNECT_LIST_ALL_SECRETS: i32 = 287;
    pub const CONNECT_REGISTER_CLOSE_CALLBACK: i32 = 360;
    pub const CONNECT_UNREGISTER_CLOSE_CALLBACK: i32 = 361;
    pub const CONNECT_SECRET_EVENT_REGISTER_ANY: i32 = 380;
    pub const CONNECT_SECRET_EVENT_DEREGISTER_ANY: i32 = 381;
    pub const SECRET_EVENT_LIFECYCLE: i32 = 382;
    pub const SECRET_EVENT_VALUE_CHANGED: i32 = 383;
    pub const CONNECT_SET_IDENTITY: i32 = 419;
}

/// The ways to authenticate, as AUTH_LIST names them.
#[allow(missing_docs)] // the names are libvirt's own
pub mod auth {
    pub const NONE: i32 = 0;
    pub const SASL: i32 = 1;
    pub const POLKIT: i32 = 2;
}

/// What CONNECT_SUPPORTS_FEATURE may be asked.
pub mod feature {
    /// File descriptors can be passed.
    pub const FD_PASSING: i32 = 8;
    /// Keepalive is understood. Asking arms it.
    pub const KEEPALIVE: i32 = 10;
    /// Events carry the id of their registration.
    pub const EVENT_CALLBACK: i32 = 14;
    /// Close callbacks can be registered.
    pub const CLOSE_CALLBACK: i32 = 15;
}

/// CONNECT_OPEN's flag for a connection that changes nothing.
pub const OPEN_READ_ONLY: u32 = 1;

/// The serial of every event.
pub const EVENT_SERIAL: u32 = 1;

body! {
    /// A secret as calls and events name it. Of one that a client sends only the UUID counts.
    SecretName<'a> {
        /// Its UUID.
        uuid: [u8; 16],
        /// The type of its usage.
        kind: i32,
        /// The id of its usage; empty for type none.
        id: Text<'a>,
    }
}

body! {
    /// CONNECT_OPEN asks.
    Open<'a> {
        /// The URI.
        name: Option<Text<'a>>,
        /// Only [`OPEN_READ_ONLY`] counts.
        flags: u32,
    }
}

body! {
    /// One number: the answer of CONNECT_SUPPORTS_FEATURE, CONNECT_IS_SECURE, CONNECT_NUM_OF_SECRETS, AUTH_POLKIT and
    /// CONNECT_SECRET_EVENT_REGISTER_ANY; what CONNECT_SUPPORTS_FEATURE, CONNECT_LIST_SECRETS and
    /// CONNECT_SECRET_EVENT_DEREGISTER_ANY ask.
    Number {
        /// The number.
        number: i32,
    }
}

body! {
    /// CONNECT_GET_LIB_VERSION answers.
    Version {
        /// major * 1,000,000 + minor * 1,000 + micro.
        version: u64,
    }
}

body! {
    /// AUTH_LIST answers: [`auth`] types, always one.
    AuthTypes {
        /// The types.
        types: List<i32, 20>,
    }
}

body! {
    /// AUTH_SASL_START asks.
    SaslStart<'a> {
        /// The mechanism that the client has chosen.
        mechanism: Text<'a>,
        /// What it says first.
        said: Said<'a>,
    }
}

body! {
    /// AUTH_SASL_START and AUTH_SASL_STEP answer.
    SaslReply<'a> {
        /// Whether the client has proved who it is: all that follows, both ways, is in the layer that was agreed upon.
        complete: i32,
        /// What the server says.
        said: Said<'a>,
    }
}

body! {
    /// What one end says in a SASL negotiation; AUTH_SASL_STEP asks so.
    Said<'a> {
        /// Not 0: it says nothing, which is something else than no bytes.
        nil: i32,
        /// The bytes.
        data: Chars<'a>,
    }
}

impl<'a> Said<'a> {
    /// These bytes, or nothing.
    pub fn new(data: Option<&'a [u8]>) -> Self {
        Self { nil: i32::from(data.is_none()), data: Chars::Plain(data.unwrap_or_default()) }
    }

    /// The bytes in secret memory, if there are such.
    pub fn to_secret(&self) -> Result<Option<SecretBytes>, Exhausted> {
        (self.nil == 0).then(|| self.data.to_secret()).transpose()
    }
}

body! {
    /// One string: CONNECT_GET_TYPE, CONNECT_GET_URI and SECRET_GET_XML_DESC answer so; AUTH_SASL_INIT does with the
    /// mechanisms, commas between.
    Line<'a> {
        /// The string.
        text: Text<'a>,
    }
}

body! {
    /// CONNECT_LIST_SECRETS answers: UUIDs in lower case with dashes.
    Uuids<'a> {
        /// The UUIDs.
        uuids: List<Text<'a>, MAX_LIST>,
    }
}

body! {
    /// A UUID: SECRET_LOOKUP_BY_UUID asks.
    Uuid {
        /// Its 16 bytes.
        uuid: [u8; 16],
    }
}

body! {
    /// SECRET_LOOKUP_BY_USAGE asks.
    UsageName<'a> {
        /// The type.
        kind: i32,
        /// The id.
        id: Text<'a>,
    }
}

body! {
    /// SECRET_DEFINE_XML asks.
    Define<'a> {
        /// The document.
        xml: Text<'a>,
        /// Define flags.
        flags: u32,
    }
}

body! {
    /// A secret and flags: SECRET_GET_XML_DESC and SECRET_GET_VALUE ask.
    Flagged<'a> {
        /// The secret.
        secret: SecretName<'a>,
        /// The flags.
        flags: u32,
    }
}

body! {
    /// SECRET_SET_VALUE asks.
    SetValue<'a> {
        /// The secret.
        secret: SecretName<'a>,
        /// Its new value.
        value: Value<'a>,
        /// The flags.
        flags: u32,
    }
}

body! {
    /// CONNECT_LIST_ALL_SECRETS asks.
    ListAll {
        /// Whether the secrets are wanted, or their number alone.
        need_results: i32,
        /// What to list.
        flags: u32,
    }
}

body! {
    /// CONNECT_LIST_ALL_SECRETS answers.
    Secrets<'a> {
        /// The secrets.
        secrets: List<SecretName<'a>, MAX_LIST>,
        /// How many there are.
        count: u32,
    }
}

body! {
    /// CONNECT_SECRET_EVENT_REGISTER_ANY asks.
    Register<'a> {
        /// The kind of event.
        event: i32,
        /// The secret to hear of; all if there is none.
        secret: Option<SecretName<'a>>,
    }
}

body! {
    /// SECRET_EVENT_LIFECYCLE.
    LifecycleEvent<'a> {
        /// The registration.
        callback: i32,
        /// The secret.
        secret: SecretName<'a>,
        /// 0: defined; 1: undefined.
        event: i32,
        /// Always 0.
        detail: i32,
    }
}

body! {
    /// SECRET_EVENT_VALUE_CHANGED.
    ValueChangedEvent<'a> {
        /// The registration.
        callback: i32,
        /// The secret.
        secret: SecretName<'a>,
    }
}

body! {
    /// The body of a reply whose status is an error.
    ErrorBody<'a> {
        /// virErrorNumber.
        code: i32,
        /// virErrorDomain.
        domain: i32,
        /// The whole message, prefix and all.
        message: Option<Text<'a>>,
        /// 2: an error.
        level: i32,
        /// A domain (a guest); never there.
        guest: Option<Guest<'a>>,
        /// The message's format, or the function of a bad argument.
        str1: Option<Text<'a>>,
        /// The message without its prefix, or the name of a bad argument.
        str2: Option<Text<'a>>,
        /// Our advice, in replies of our own program only.
        str3: Option<Text<'a>>,
        /// The errno of a system error, 0 for a bad argument, else -1.
        int1: i32,
        /// 0 for a bad argument, else -1.
        int2: i32,
        /// A network; never there.
        network: Option<Network<'a>>,
    }
}

body! {
    /// A guest as errors name it.
    Guest<'a> {
        /// Its name.
        name: Text<'a>,
        /// Its UUID.
        uuid: [u8; 16],
        /// Its id.
        id: i32,
    }
}

body! {
    /// A network as errors name it.
    Network<'a> {
        /// Its name.
        name: Text<'a>,
        /// Its UUID.
        uuid: [u8; 16],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::xdr::{Decode, Encode, Reader};

    #[test]
    fn an_event_reads_as_it_was_captured() {
        let captured =
            [&[0; 4][..], &[0x11; 16], &[0, 0, 0, 2, 0, 0, 0, 2, b'n', b'1', 0, 0], &[0; 8]].concat();
        let event = LifecycleEvent::decode(&mut Reader::new(&captured)).unwrap();
        assert_eq!(event.secret, SecretName { uuid: [0x11; 16], kind: 2, id: Text(b"n1") });
        let mut again = Vec::new();
        event.encode(&mut again);
        assert_eq!(again, captured);
    }

    #[test]
    fn a_value_is_in_no_debug_output() {
        let secret = SecretName { uuid: [0; 16], kind: 0, id: Text(b"") };
        let shown = format!("{:?}", SetValue { secret, value: Value(b"hunter2"), flags: 0 });
        assert!(shown.contains("REDACTED") && !shown.contains("104, 117"), "{shown}");
    }
}
