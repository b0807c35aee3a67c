//! Errors in libvirt's terms: code, domain, message, and the further fields that travel with them.
//!
//! The one place that knows libvirt's numbers and texts; scripts match on them. Each situation has a constructor
//! here, so that a text exists once. Leans on nothing. Refuses to carry a value or a key: no constructor takes one.

use std::fmt;
use std::io;

use ::uuid::Uuid;

use super::UsageType;
use crate::memory::Exhausted;

/// An error as libvirt reports it, with our advice where there is a next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    code: ErrorCode,
    domain: ErrorDomain,
    detail: String,
    shape: Detail,
    advice: Option<String>,
}

/// The three shapes that an error takes on libvirt's wire, and one for what came over it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// The message is the code's prefix and a detail.
    Ordinary,
    /// A bad argument: the message has no prefix; the API function and its argument travel along.
    Argument {
        /// The C function, `"secretGetValue"`.
        function: &'static str,
        /// The argument, `"flags"`.
        argument: &'static str,
    },
    /// A system call failed; the message ends in its text.
    System {
        /// The errno.
        errno: i32,
    },
    /// A server said it: the message is taken as it came, and doesn't begin with its code's prefix.
    Verbatim,
}

/// Numbers with names. Those without one are kept as they are: a server may be newer than we are.
macro_rules! numbered {
    ($(#[$meta:meta])* pub enum $name:ident { $($word:ident = $number:literal,)* }) => {
        $(#[$meta])*
        pub enum $name {
            $($word,)*
            /// One without a name here.
            Other(i32),
        }

        impl $name {
            /// The one with this number.
            pub fn from_number(number: i32) -> Self {
                match number {
                    $($number => Self::$word,)*
                    other => Self::Other(other),
                }
            }

            /// Its number.
            pub fn number(self) -> i32 {
                match self {
                    $(Self::$word => $number,)*
                    Self::Other(number) => number,
                }
            }
        }
    };
}

numbered! {
    /// libvirt's error numbers (virErrorNumber), those that a secret connection can meet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    #[allow(missing_docs)] // the names are libvirt's own
    pub enum ErrorCode {
        InternalError = 1,
        NoSupport = 3,
        NoConnect = 5,
        InvalidArg = 8,
        OperationFailed = 9,
        XmlError = 27,
        OperationDenied = 29,
        ConfSyntax = 33,
        XmlDetail = 35,
        SystemError = 38,
        Rpc = 39,
        AuthFailed = 45,
        OperationInvalid = 55,
        InvalidSecret = 65,
        NoSecret = 66,
        ConfigUnsupported = 67,
        ArgumentUnsupported = 74,
        AuthCancelled = 79,
        OperationUnsupported = 84,
        AccessDenied = 88,
        XmlInvalidSchema = 92,
        AuthUnavailable = 94,
        NoServer = 95,
        NoClient = 96,
    }
}

impl ErrorCode {
    /// What libvirt puts before the detail of an ordinary error of this code.
    fn prefix(self) -> &'static str {
        match self {
            Self::InternalError => "internal error: ",
            Self::NoSupport => "this function is not supported by the connection driver: ",
            Self::NoConnect => "no connection driver available for ",
            Self::InvalidArg => "invalid argument: ",
            Self::OperationFailed => "operation failed: ",
            Self::XmlError => "XML error: ",
            Self::OperationDenied => "operation forbidden: ",
            Self::ConfSyntax => "configuration file syntax error: ",
            Self::XmlDetail | Self::SystemError | Self::Rpc | Self::Other(_) => "",
            Self::AuthFailed => "authentication failed: ",
            Self::OperationInvalid => "Requested operation is not valid: ",
            Self::InvalidSecret => "Invalid secret: ",
            Self::NoSecret => "Secret not found: ",
            Self::ConfigUnsupported => "unsupported configuration: ",
            Self::ArgumentUnsupported => "argument unsupported: ",
            Self::AuthCancelled => "authentication cancelled: ",
            Self::OperationUnsupported => "Operation not supported: ",
            Self::AccessDenied => "access denied: ",
            Self::XmlInvalidSchema => "XML document failed to validate against schema: ",
            Self::AuthUnavailable => "authentication unavailable: ",
            Self::NoServer => "Server not found: ",
            Self::NoClient => "Client not found: ",
        }
    }
}

numbered! {
    /// libvirt's error domains (virErrorDomain), those that a secret connection can meet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    #[allow(missing_docs)] // the names are libvirt's own
    pub enum ErrorDomain {
        None = 0,
        Xml = 5,
        Rpc = 7,
        Conf = 9,
        Remote = 13,
        Storage = 18,
        Network = 19,
        Domain = 20,
        NodeDev = 22,
        Interface = 26,
        Secret = 30,
        NwFilter = 33,
        DomainSnapshot = 35,
        DBus = 47,
        Identity = 53,
        Access = 55,
        Polkit = 60,
        Admin = 62,
        DomainCheckpoint = 69,
    }
}

/// The calls that errors name, with the two names libvirt has for each: the driver's and the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // one for each call of the trait
pub enum Function {
    ListAll,
    Define,
    XmlDesc,
    SetValue,
    Value,
    Undefine,
}

impl Function {
    /// The driver's name: bad flags are reported under it.
    fn driver(self) -> &'static str {
        match self {
            Self::ListAll => "secretConnectListAllSecrets",
            Self::Define => "secretDefineXML",
            Self::XmlDesc => "secretGetXMLDesc",
            Self::SetValue => "secretSetValue",
            Self::Value => "secretGetValue",
            Self::Undefine => "secretUndefine",
        }
    }

    /// The public API's name: read-only connections are refused under it.
    fn api(self) -> &'static str {
        match self {
            Self::ListAll => "virConnectListAllSecrets",
            Self::Define => "virSecretDefineXML",
            Self::XmlDesc => "virSecretGetXMLDesc",
            Self::SetValue => "virSecretSetValue",
            Self::Value => "virSecretGetValue",
            Self::Undefine => "virSecretUndefine",
        }
    }
}

/// The situations. Texts are libvirt's (libvirt 11.3 and 12.8) unless the doc comment says "ours".
impl Error {
    /// No secret has this UUID.
    pub fn no_such_uuid(uuid: Uuid) -> Self {
        Self::secret(ErrorCode::NoSecret, format!("no secret with matching uuid '{uuid}'"))
    }

    /// No secret has this usage.
    pub fn no_such_usage(id: &str) -> Self {
        Self::secret(ErrorCode::NoSecret, format!("no secret with matching usage '{id}'"))
    }

    /// The secret has no value yet.
    pub fn no_value(uuid: Uuid) -> Self {
        Self::secret(ErrorCode::NoSecret, format!("secret '{uuid}' does not have a value"))
    }

    /// The value is private, and the caller isn't elevated.
    pub fn private() -> Self {
        Self::secret(ErrorCode::InvalidSecret, "secret is private")
    }

    /// A read-only connection asked for a change or a value.
    pub fn read_only(function: Function) -> Self {
        let detail = format!("read only access prevents {}", function.api());
        Self::secret(ErrorCode::OperationDenied, detail)
    }

    /// Flag bits that the call doesn't define; only those are shown.
    pub fn unsupported_flags(unknown: u32, function: Function) -> Self {
        let function = function.driver();
        Self::secret(
            ErrorCode::InvalidArg,
            format!("unsupported flags (0x{unknown:x}) in function {function}"),
        )
        .shaped(Detail::Argument { function, argument: "flags" })
    }

    /// The same for calls on the daemon itself, by libvirt's name for the function.
    pub fn unsupported_admin_flags(unknown: u32, function: &'static str) -> Self {
        let detail = format!("unsupported flags (0x{unknown:x}) in function {function}");
        Self::new(ErrorCode::InvalidArg, ErrorDomain::Admin, detail)
            .shaped(Detail::Argument { function, argument: "flags" })
    }

    /// A value of no bytes.
    pub fn empty_value() -> Self {
        Self::secret(ErrorCode::InvalidArg, "value in virSecretSetValue must not be NULL")
            .shaped(Detail::Argument { function: "virSecretSetValue", argument: "value" })
    }

    /// Text that is no UUID, given to a look-up.
    pub fn bad_uuid_string() -> Self {
        let function = "virSecretLookupByUUIDString";
        Self::secret(ErrorCode::InvalidArg, format!("uuidstr in {function} must be a valid UUID"))
            .shaped(Detail::Argument { function, argument: "uuidstr" })
    }

    /// A value of more than 65,536 bytes.
    pub fn value_too_long(len: usize) -> Self {
        let max = super::MAX_VALUE;
        Self::new(
            ErrorCode::InvalidArg,
            ErrorDomain::Secret,
            format!("value length greater than maximum: {len} > {max}"),
        )
    }

    /// A redefinition with another usage id. `old` is `None` if the secret had no usage.
    pub fn usage_is_fixed(uuid: Uuid, old: Option<&str>) -> Self {
        let old = old.unwrap_or("(null)");
        let detail = format!("a secret with UUID {uuid} is already defined for use with {old}");
        Self::secret(ErrorCode::InternalError, detail)
    }

    /// The usage belongs to another secret.
    pub fn usage_is_taken(owner: Uuid, id: &str) -> Self {
        let detail = format!("a secret with UUID {owner} already defined for use with {id}");
        Self::secret(ErrorCode::InternalError, detail)
    }

    /// A redefinition would make a private secret readable.
    pub fn private_is_fixed() -> Self {
        Self::secret(ErrorCode::InternalError, "cannot change private flag on existing secret")
    }

    /// More secrets than one list call may return.
    pub fn too_many(count: usize) -> Self {
        let max = super::MAX_LIST;
        Self::new(
            ErrorCode::InternalError,
            ErrorDomain::Rpc,
            format!("Too many secrets '{count}' for limit '{max}'"),
        )
    }

    /// The same subscription twice on one connection.
    pub fn already_subscribed() -> Self {
        Self::new(ErrorCode::InvalidArg, ErrorDomain::None, "event callback already tracked")
    }

    /// A URI that no driver here serves.
    pub fn no_driver_for(uri: &str) -> Self {
        Self::new(ErrorCode::NoConnect, ErrorDomain::None, uri)
    }

    /// A document of another kind.
    pub fn wrong_root(name: &str) -> Self {
        let detail = format!("expecting root element of 'secret', not '{name}'");
        Self::new(ErrorCode::XmlError, ErrorDomain::Xml, detail)
    }

    /// A document's `ephemeral` or `private` that is neither yes nor no.
    pub fn bad_flag(name: &str) -> Self {
        Self::secret(ErrorCode::XmlError, format!("invalid value of '{name}'"))
    }

    /// A document's `<uuid>` that is none.
    pub fn malformed_uuid() -> Self {
        Self::secret(ErrorCode::InternalError, "malformed uuid element")
    }

    /// A document without `<uuid>`, and no way to make one up.
    pub fn no_randomness() -> Self {
        Self::secret(ErrorCode::InternalError, "Failed to generate UUID")
    }

    /// A document's `<usage>` without a type.
    pub fn no_usage_type() -> Self {
        let detail = "Missing required attribute 'type' in element 'usage'";
        Self::new(ErrorCode::XmlError, ErrorDomain::Xml, detail)
    }

    /// A document's `<usage>` of a type that doesn't exist.
    pub fn unknown_usage_type(name: &str) -> Self {
        let detail = format!("Invalid value for attribute 'type' in element 'usage': '{name}'.");
        Self::new(ErrorCode::XmlError, ErrorDomain::Xml, detail)
    }

    /// A document's `<usage>` that doesn't say which one.
    pub fn no_usage_id(kind: UsageType) -> Self {
        let detail = match kind {
            UsageType::None => "usage specified, but name is missing",
            UsageType::Volume => "volume usage specified, but volume path is missing",
            UsageType::Ceph => "Ceph usage specified, but name is missing",
            UsageType::Iscsi => "iSCSI usage specified, but target is missing",
            UsageType::Tls => "TLS usage specified, but name is missing",
            UsageType::Vtpm => "vTPM usage specified, but name is missing",
        };
        Self::secret(ErrorCode::InternalError, detail)
    }

    /// A document that doesn't follow the schema. `details`: libxml2's lines.
    pub fn against_schema(details: &[&str]) -> Self {
        let mut detail = format!("Unable to validate doc against {SCHEMA}\n");
        for line in details {
            detail.push_str(line);
            detail.push('\n');
        }
        Self::new(ErrorCode::XmlInvalidSchema, ErrorDomain::Xml, detail)
    }

    /// A system call failed: `doing` says what and to which file.
    pub fn system(doing: impl fmt::Display, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let text = match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
            None => error.to_string(),
        };
        let text = text.split(" (os error").next().unwrap_or_default();
        Self::secret(ErrorCode::SystemError, format!("{doing}: {text}")).shaped(Detail::System { errno })
    }

    /// Ours: the keystore can't do this in its present state (locked, read-only).
    pub fn not_now(detail: impl Into<String>) -> Self {
        Self::secret(ErrorCode::OperationInvalid, detail)
    }

    /// Ours: this secret's record doesn't open.
    pub fn damaged(uuid: Uuid, how: impl fmt::Display) -> Self {
        Self::secret(ErrorCode::InvalidSecret, format!("the record of secret '{uuid}' is damaged: {how}"))
    }

    /// Ours: the keystore as a whole can't be opened or used.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self::secret(ErrorCode::OperationFailed, detail)
    }

    /// An error of the secret driver, with its code's prefix.
    pub fn secret(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::new(code, ErrorDomain::Secret, detail)
    }

    /// What a server reported: its message whole, its numbers whatever they are.
    pub fn reported(code: ErrorCode, domain: ErrorDomain, message: &str, errno: Option<i32>) -> Self {
        match (message.strip_prefix(code.prefix()), errno) {
            (_, Some(errno)) => Self::new(code, domain, message).shaped(Detail::System { errno }),
            (Some(detail), None) => Self::new(code, domain, detail),
            (None, None) => Self::new(code, domain, message).shaped(Detail::Verbatim),
        }
    }

    /// Any other error, with its code's prefix.
    pub fn new(code: ErrorCode, domain: ErrorDomain, detail: impl Into<String>) -> Self {
        let (detail, shape) = (detail.into(), Detail::Ordinary);
        Self(Box::new(Parts { code, domain, detail, shape, advice: None }))
    }

    /// The same error, met elsewhere.
    pub fn in_domain(mut self, domain: ErrorDomain) -> Self {
        self.0.domain = domain;
        self
    }

    /// The same error with the next step for the person who meets it. Advice travels on no wire of libvirt's.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }
}

/// What callers see.
impl Error {
    /// libvirt's number for what went wrong.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// libvirt's number for where it went wrong.
    pub fn domain(&self) -> ErrorDomain {
        self.0.domain
    }

    /// The text after the prefix.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The message with `%1$s` in the detail's place, which is how an ordinary or a system error names its kind on the
    /// wire; `%s` if the message is all detail. (In an argument error's place for it stands the function.)
    pub fn format(&self) -> String {
        match self.prefix() {
            "" => "%s".to_owned(),
            prefix => format!("{prefix}%1$s"),
        }
    }

    /// The further fields.
    pub fn shape(&self) -> &Detail {
        &self.0.shape
    }

    /// What to do about it, where we know.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    fn shaped(mut self, shape: Detail) -> Self {
        self.0.shape = shape;
        self
    }

    fn prefix(&self) -> &'static str {
        match self.0.shape {
            Detail::Ordinary => self.0.code.prefix(),
            Detail::Argument { .. } | Detail::System { .. } | Detail::Verbatim => "",
        }
    }
}

impl fmt::Display for Error {
    /// The message as libvirt words it: prefix and detail, no advice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())?;
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for Error {}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        Self::failed(exhausted.to_string())
            .advise("wait for other calls to finish, undefine ephemeral secrets, or raise RLIMIT_MEMLOCK")
    }
}

/// Where libvirt keeps the schema. Scripts match on the line that names it.
const SCHEMA: &str = "/usr/share/libvirt/schemas/secret.rng";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_libvirts() {
        let uuid = Uuid::from_bytes([0x11; 16]);
        let cases = [
            (
                Error::no_such_uuid(uuid),
                66,
                "Secret not found: no secret with matching uuid '11111111-1111-1111-1111-111111111111'",
            ),
            (Error::private(), 65, "Invalid secret: secret is private"),
            (
                Error::read_only(Function::Value),
                29,
                "operation forbidden: read only access prevents virSecretGetValue",
            ),
            (
                Error::unsupported_flags(0x10, Function::ListAll),
                8,
                "unsupported flags (0x10) in function secretConnectListAllSecrets",
            ),
            (Error::empty_value(), 8, "value in virSecretSetValue must not be NULL"),
            (
                Error::usage_is_fixed(uuid, None),
                1,
                "internal error: a secret with UUID 11111111-1111-1111-1111-111111111111 is already defined \
                 for use with (null)",
            ),
        ];
        for (error, code, message) in cases {
            assert_eq!((error.code().number(), error.to_string().as_str()), (code, message));
        }
    }

    #[test]
    fn the_wires_format_is_the_message_without_its_detail() {
        let format = |error: Error| error.format();
        assert_eq!(format(Error::no_such_usage("%s")), "Secret not found: %1$s");
        assert_eq!(format(Error::no_driver_for("a:///")), "no connection driver available for %1$s");
        let denied = Error::new(ErrorCode::AccessDenied, ErrorDomain::Access, "'secret' denied access");
        assert_eq!(denied.to_string(), "access denied: 'secret' denied access");
        assert_eq!(format(denied), "access denied: %1$s");
        let rpc = Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "unknown procedure: 7");
        assert_eq!((rpc.to_string().as_str(), format(rpc.clone()).as_str()), ("unknown procedure: 7", "%s"));
        assert_eq!(format(Error::empty_value()), "%s");
        assert_eq!(format(Error::system("x", &io::Error::from_raw_os_error(2))), "%s");
    }

    #[test]
    fn a_system_error_ends_in_the_systems_text_and_keeps_its_number() {
        let error = Error::system("cannot open 'x'", &io::Error::from_raw_os_error(28));
        assert_eq!(error.to_string(), "cannot open 'x': No space left on device");
        assert_eq!(error.shape(), &Detail::System { errno: 28 });
    }

    #[test]
    fn what_a_server_reports_is_kept_whole() {
        for (code, domain, message) in [
            (88, 55, "access denied: 'secret' denied access"),
            (8, 30, "unsupported flags (0x1) in function secretGetValue"),
            (4711, -3, "something new"),
        ] {
            let code = ErrorCode::from_number(code);
            let error = Error::reported(code, ErrorDomain::from_number(domain), message, None);
            assert_eq!((error.code(), error.domain().number()), (code, domain));
            assert_eq!(error.to_string(), message);
        }
        let rpc = Error::reported(ErrorCode::SystemError, ErrorDomain::None, "cannot: No space", Some(28));
        assert_eq!(rpc.shape(), &Detail::System { errno: 28 });
    }
}
