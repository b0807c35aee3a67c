//! Where clients hear otherwise from strongroomd than from Debian's libvirtd 9.0, and why.
//!
//! What newer libvirts answer goes before what 9.0 does; "11.3" and "12.8" in a reason say that it was seen there.

/// A step at which they do.
#[derive(Debug)]
pub(crate) struct Known {
    /// `PATH` in it stands for the path of the daemon's URI.
    pub(crate) section: &'static str,
    /// `*` is any step of its section.
    pub(crate) step: &'static str,
    /// What our answer has in it.
    pub(crate) ours: &'static str,
    #[expect(dead_code, reason = "shown in reports, by Debug")]
    pub(crate) why: &'static str,
}

/// raw.py
pub(crate) const RAW: &[Known] = &[
    Known {
        section: "a string that isn't UTF-8",
        step: "LOOKUP_BY_USAGE",
        ours: "66/30 \"Secret not found: no secret with matching usage 'caf\u{fffd} \u{fffd}\u{fffd}'\"",
        why: "our errors are UTF-8; and no document gives a secret such a name",
    },
    Known {
        section: "a byte where a descriptor is due",
        step: "the end",
        ours: "still usable",
        why: "descriptors are never taken, so nobody sees that one is missing",
    },
    Known {
        section: "a descriptor for procedure 9999 of program REMOTE",
        step: "the end",
        ours: "still usable",
        why: "libvirt takes the descriptor's byte for the next packet's first one",
    },
    Known {
        section: "a descriptor for procedure 1 of program 7",
        step: "the end",
        ours: "still usable",
        why: "libvirt takes the descriptor's byte for the next packet's first one",
    },
    Known {
        section: "OPEN secret+unix://PATH",
        step: "OPEN",
        ours: "29/7 \"operation forbidden: Remote URI 'secret+unix:///",
        why: "12.8 refuses transports so",
    },
    Known {
        section: "OPEN secret+nonsense://PATH",
        step: "OPEN",
        ours: "29/7 \"operation forbidden: Remote URI 'secret+nonsense:///",
        why: "12.8 refuses transports so",
    },
    Known {
        section: "a second OPEN",
        step: "OPEN, read-only",
        ours: "1/7 \"internal error: connection already open\"",
        why: "a second OPEN that fails makes libvirt forget the first one; the next is taken",
    },
    Known {
        section: "DEFINE_XML, documents that are refused",
        step: "nothing",
        ours: "35/30 \"at line 1: Document is empty\\n\\n^\"",
        why: "libvirt prints glibc's word for a string that isn't there",
    },
    Known {
        section: "DEFINE_XML, documents that are refused",
        step: "bytes that aren't UTF-8",
        ours: "Bytes: 0xFF 0x3C 0x2F 0x64\\n<secret><description>\u{fffd}</description></secret>\\n",
        why: "our errors are UTF-8",
    },
    Known {
        section: "DEFINE_XML, documents that are refused",
        step: "usage without a type",
        ours: "27/5 \"XML error: Missing required attribute 'type' in element 'usage'\"",
        why: NEW_USAGE,
    },
    Known {
        section: "DEFINE_XML, documents that are refused",
        step: "usage of an unknown type",
        ours: "27/5 \"XML error: Invalid value for attribute 'type' in element 'usage': 'nonsense'.\"",
        why: NEW_USAGE,
    },
    Known {
        section: "DEFINE_XML, documents that are refused",
        step: "usage of an empty type",
        ours: "27/5 \"XML error: Invalid value for attribute 'type' in element 'usage': ''.\"",
        why: NEW_USAGE,
    },
    Known {
        section: "DEFINE_XML, conflicts and redefinition",
        step: "and that as ceph's",
        ours: "already defined for use with n1",
        why: "libvirt lets a redefinition take another secret's usage, so that a look-up finds either",
    },
];

/// raw.py --unauthenticated
pub(crate) const UNAUTHENTICATED: &[Known] = &[Known {
    section: "unauthenticated: methods",
    step: "AUTH_POLKIT",
    ours: "1/47 \"internal error: Unable to get system bus connection: ",
    why: "what is wrong with the bus is said by another library",
}];

/// libvirt_python.py
pub(crate) const PYTHON: &[Known] = &[
    Known {
        section: "documents that are refused",
        step: "usage without type",
        ours: "code=27 domain=5 level=2 message=\"XML error: Missing required attribute 'type' in element 'usage'\"",
        why: NEW_USAGE,
    },
    Known {
        section: "documents that are refused",
        step: "usage with empty type",
        ours: "code=27 domain=5 level=2 message=\"XML error: Invalid value for attribute 'type' in element 'usage': ''.\"",
        why: NEW_USAGE,
    },
    Known {
        section: "documents that are refused",
        step: "usage of unknown type",
        ours: "message=\"XML error: Invalid value for attribute 'type' in element 'usage': 'nfs'.\"",
        why: NEW_USAGE,
    },
    other_driver("number of networks"),
    other_driver("networks"),
    other_driver("number of pools"),
    other_driver("pools"),
    other_driver("interfaces"),
    other_driver("devices"),
    other_driver("filters"),
    other_driver("filter bindings"),
];

/// The client in Go.
pub(crate) const GO: &[Known] = &[other_driver("networks"), other_driver("pools")];

const fn other_driver(step: &'static str) -> Known {
    Known {
        section: "other drivers",
        step,
        ours: "code=1 domain=7 ",
        why: "libvirtd has all programs in one; virtsecretd has no connection for such calls, and so have we",
    }
}

const NEW_USAGE: &str = "11.3 reads attributes by a common function";

/// raw.py --admin
pub(crate) const RAW_ADMIN: &[Known] = &[
    Known {
        section: "CLIENT_LIMITS of [main]",
        step: "SET more unauthenticated than all",
        ours: LIMITS,
        why: "11.3 says which is which; 9.0 mixes the two up",
    },
    Known {
        section: "CLIENT_LIMITS of admin",
        step: "SET more unauthenticated than all",
        ours: LIMITS,
        why: "11.3 says which is which; 9.0 mixes the two up",
    },
    Known {
        section: "DAEMON_SHUTDOWN with flags that there aren't",
        step: "flags 0x80000000",
        ours: "8/62 \"unsupported flags (0x80000000) in function adminConnectDaemonShutdown\"",
        why: "the call came with 11.2",
    },
];

/// virt_admin.py
pub(crate) const VIRT_ADMIN: &[Known] = &[
    Known {
        section: "limits",
        step: "server-clients-set SERVER --max-clients 5",
        ours: LIMITS,
        why: "11.3 says which is which; 9.0 mixes the two up",
    },
    Known {
        section: "limits",
        step: "server-clients-set SERVER --max-unauth-clients 101",
        ours: LIMITS,
        why: "11.3 says which is which; 9.0 mixes the two up",
    },
    Known {
        section: "limits",
        step: "server-clients-set SERVER --max-clients 0",
        ours: LIMITS,
        why: "11.3 says which is which; 9.0 mixes the two up",
    },
    Known {
        section: "clients",
        step: "client-info SERVER <first>",
        ours: "unix_user_id   : 0",
        why: "whoever a client says that it speaks for, administrators see who it is",
    },
];

const LIMITS: &str = "The overall maximum number of clients must not be less than the number of clients waiting for authentication";
