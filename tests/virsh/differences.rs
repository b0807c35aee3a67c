//! Where strongroom and virsh may differ, each line with its reason: [`WORDS`], texts that libvirt 11.3 words otherwise
//! than the 9.0 at hand, and [`KNOWN`], steps that differ on purpose.

/// A text of libvirt 9.0's and what it became.
pub(crate) struct Words {
    pub(crate) whose: Whose,
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
    pub(crate) reason: &'static str,
}

/// Who says a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The program itself.
    Virsh,
    /// The driver, embedded or in a daemon.
    Driver,
}

/// Texts of libvirt 9.0 and what 11.3 and 12.8 say instead.
pub(crate) const WORDS: &[Words] = &[
    Words {
        whose: Whose::Virsh,
        old: "error: Passing secret value as command-line argument is insecure!",
        new: "warning: Passing secret value as command-line argument is insecure!",
        reason: "12.8 no longer calls a warning an error",
    },
    Words {
        whose: Whose::Driver,
        old: "error: (definition_of_secret):",
        new: "error: at line ",
        reason: "11.3 leaves out the document's made-up name",
    },
    Words {
        whose: Whose::Driver,
        old: "error: XML error: unknown secret usage type\n",
        new: "error: XML error: Missing required attribute 'type' in element 'usage'\n",
        reason: "11.3 reads attributes by a common function",
    },
    Words {
        whose: Whose::Driver,
        old: "error: unsupported configuration: unknown secret usage type ",
        new: "error: XML error: Invalid value for attribute 'type' in element 'usage': ",
        reason: "11.3 reads attributes by a common function",
    },
];

/// A step that differs on purpose, wherever its cause is found; `*` is any step of its case.
pub(crate) struct Known {
    pub(crate) cause: Cause,
    pub(crate) case: &'static str,
    pub(crate) step: &'static str,
    pub(crate) reason: &'static str,
}

/// Why a step differs, and so, between which sides it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Our program isn't virsh.
    Program,
    /// Our keystore is embedded.
    Embedded,
    /// Our driver, wherever it is.
    Driver,
    /// Our driver is behind our daemon's sockets.
    Daemon,
    /// libvirt's driver is embedded.
    StockEmbedded,
}

pub(crate) const KNOWN: &[Known] = &[
    Known {
        cause: Cause::Program,
        case: "xml/schema-ok-name-carriage-return",
        step: "VIRSH secret-define --validate document.xml",
        reason: "our program shows control characters as \\xNN: a terminal would obey them, and others choose the words",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-invalid-base64",
        step: "VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file nothing",
        reason: "12.8 refuses wholly invalid base64 itself; 9.0 sends an empty value",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-invalid-base64",
        step: "VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file digit",
        reason: "12.8 refuses wholly invalid base64 itself; 9.0 sends an empty value",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-long",
        step: "VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file long --plain",
        reason: "virsh reads 1,024 bytes of a file at most; a value may have 65,536",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-long",
        step: "VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "follows from the step before",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-stdin",
        step: "printf hello | VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "ours: without an option a piped value is taken",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-stdin",
        step: "printf aGVs | VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file -",
        reason: "ours: the file - is standard input",
    },
    Known {
        cause: Cause::Program,
        case: "set-value-stdin",
        step: "VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "follows from the steps before",
    },
    Known {
        cause: Cause::Program,
        case: "event-bad-secret",
        step: "VIRSH secret-event --event lifecycle --timeout 1 --secret nope",
        reason: "virsh forgets the failed look-up and waits for all secrets; we stop",
    },
    Known {
        cause: Cause::Program,
        case: "event-bad-secret",
        step: "VIRSH secret-event --event lifecycle --timeout 1 --secret 00000000-0000-0000-0000-000000000001",
        reason: "virsh forgets the failed look-up and waits for all secrets; we stop",
    },
    Known {
        cause: Cause::StockEmbedded,
        case: "get-value-private",
        step: "VIRSH secret-get-value 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "libvirt's embedded driver has no identity and says so, instead of what its daemon says",
    },
    Known {
        cause: Cause::Driver,
        case: "define-bad-documents",
        step: "VIRSH secret-define empty-type.xml",
        reason: "9.0 takes an empty type for a missing one, 11.3 for an invalid one",
    },
    Known {
        cause: Cause::Driver,
        case: "xml/bad-usage-empty-type",
        step: "*",
        reason: "9.0 takes an empty type for a missing one, 11.3 for an invalid one",
    },
    Known {
        cause: Cause::Driver,
        case: "xml/differs-doctype",
        step: "*",
        reason: "we refuse document types: no known client sends one, and entities can be bombs",
    },
    Known {
        cause: Cause::Driver,
        case: "xml/differs-doctype-entities",
        step: "*",
        reason: "we refuse document types: no known client sends one, and entities can be bombs",
    },
    Known {
        cause: Cause::Driver,
        case: "xml/differs-latin-1",
        step: "*",
        reason: "12.8 reads Latin-1; Debian's 9.0 takes it for broken UTF-8",
    },
    Known {
        cause: Cause::Driver,
        case: "xml/differs-usage-type-in-namespace",
        step: "*",
        reason: "9.0 finds the type by XPath, where a prefix counts; 11.3 looks at the attribute's local name",
    },
    Known {
        cause: Cause::Driver,
        case: "xml/differs-usage-type-in-second-usage",
        step: "*",
        reason: "9.0 finds the type by XPath, in any usage; 11.3 looks at the first usage only",
    },
    Known { cause: Cause::Embedded, case: "xml/ok-attribute-by-reference", step: "*", reason: EPHEMERAL },
    Known { cause: Cause::Embedded, case: "xml/ok-attribute-unknown", step: "*", reason: EPHEMERAL },
    Known { cause: Cause::Embedded, case: "xml/ok-attributes-both-yes", step: "*", reason: EPHEMERAL },
    Known { cause: Cause::Embedded, case: "xml/ok-attributes-double-quotes", step: "*", reason: EPHEMERAL },
    Known {
        cause: Cause::Driver,
        case: "becomes-ephemeral",
        step: "files",
        reason: "libvirt leaves the definition on disk, and would load it as a persistent secret at its next start",
    },
    Known { cause: Cause::Daemon, case: "connection", step: "VIRSH net-list", reason: OTHER_DRIVERS },
    Known { cause: Cause::Daemon, case: "connection", step: "VIRSH pool-list", reason: OTHER_DRIVERS },
    Known { cause: Cause::Daemon, case: "connection", step: "VIRSH nodedev-list", reason: OTHER_DRIVERS },
];

const EPHEMERAL: &str = "an ephemeral secret: our embedded keystore ends with its process, libvirtd lives on";

const OTHER_DRIVERS: &str =
    "libvirtd has all programs in one; virtsecretd has no connection for such calls, and so have we";
