//! The bodies of libvirt's ADMIN program, which is about the daemon itself, and the numbers of its calls.
//!
//! One struct for each shape on the wire; a comment names the calls it belongs to. Leans on `xdr` and `typed`. Refuses
//! lists longer than libvirt's own bounds.

use super::typed::Parameter;
use super::xdr::{List, Text, body};

/// The numbers of the calls.
#[allow(missing_docs)] // the names are libvirt's own
pub mod procedure {
    pub const CONNECT_OPEN: i32 = 1;
    pub const CONNECT_CLOSE: i32 = 2;
    pub const CONNECT_GET_LIB_VERSION: i32 = 3;
    pub const CONNECT_LIST_SERVERS: i32 = 4;
    pub const CONNECT_LOOKUP_SERVER: i32 = 5;
    pub const SERVER_GET_THREADPOOL_PARAMETERS: i32 = 6;
    pub const SERVER_SET_THREADPOOL_PARAMETERS: i32 = 7;
    pub const SERVER_LIST_CLIENTS: i32 = 8;
    pub const SERVER_LOOKUP_CLIENT: i32 = 9;
    pub const CLIENT_GET_INFO: i32 = 10;
    pub const CLIENT_CLOSE: i32 = 11;
    pub const SERVER_GET_CLIENT_LIMITS: i32 = 12;
    pub const SERVER_SET_CLIENT_LIMITS: i32 = 13;
    pub const CONNECT_GET_LOGGING_OUTPUTS: i32 = 14;
    pub const CONNECT_GET_LOGGING_FILTERS: i32 = 15;
    pub const CONNECT_SET_LOGGING_OUTPUTS: i32 = 16;
    pub const CONNECT_SET_LOGGING_FILTERS: i32 = 17;
    pub const SERVER_UPDATE_TLS_FILES: i32 = 18;
    pub const CONNECT_SET_DAEMON_TIMEOUT: i32 = 19;
    pub const CONNECT_DAEMON_SHUTDOWN: i32 = 20;
}

/// The way a client came: a Unix socket.
pub const TRANSPORT_UNIX: u32 = 0;

/// A client that came by TCP.
pub const TRANSPORT_TCP: u32 = 1;

/// A client that came by TLS.
pub const TRANSPORT_TLS: u32 = 2;

/// CONNECT_DAEMON_SHUTDOWN's flag: keep for the next start what is running now. Secrets have nothing of the kind.
pub const SHUTDOWN_PRESERVE: u32 = 1;

/// The most servers, or clients, that one call lists.
pub const MAX_LIST: usize = 16_384;

/// The most parameters of a server.
pub const MAX_PARAMETERS: usize = 32;

/// The most parameters of a client.
pub const MAX_CLIENT_PARAMETERS: usize = 64;

body! {
    /// Only flags: CONNECT_OPEN, the two GET_LOGGING calls and CONNECT_DAEMON_SHUTDOWN ask.
    Flags {
        /// None are known, but for [`SHUTDOWN_PRESERVE`].
        flags: u32,
    }
}

body! {
    /// A server of the daemon; CONNECT_LOOKUP_SERVER answers.
    ServerName<'a> {
        /// Its name.
        name: Text<'a>,
    }
}

body! {
    /// CONNECT_LIST_SERVERS asks.
    ListServers {
        /// Whether the names are wanted, or only how many there are.
        need_results: u32,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// CONNECT_LIST_SERVERS answers.
    Servers<'a> {
        /// The servers.
        servers: List<ServerName<'a>, MAX_LIST>,
        /// How many there are.
        count: u32,
    }
}

body! {
    /// About a server: CONNECT_LOOKUP_SERVER, the GETs of parameters and SERVER_UPDATE_TLS_FILES ask.
    OfServer<'a> {
        /// Which.
        server: ServerName<'a>,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// The SETs of a server's parameters ask.
    SetOfServer<'a> {
        /// Which.
        server: ServerName<'a>,
        /// What to set.
        parameters: List<Parameter<'a>, MAX_PARAMETERS>,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// The GETs of a server's parameters answer.
    Parameters<'a> {
        /// What there is.
        parameters: List<Parameter<'a>, MAX_PARAMETERS>,
    }
}

body! {
    /// SERVER_LIST_CLIENTS asks.
    ListClients<'a> {
        /// Of which server.
        server: ServerName<'a>,
        /// Whether the clients are wanted, or only how many there are.
        need_results: u32,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// A client; SERVER_LOOKUP_CLIENT answers. Of one that is sent only server and id count.
    ClientName<'a> {
        /// Its server.
        server: ServerName<'a>,
        /// Its id, from 1 on.
        id: u64,
        /// When it came, in Unix seconds.
        since: i64,
        /// [`TRANSPORT_UNIX`], [`TRANSPORT_TCP`] or [`TRANSPORT_TLS`].
        transport: u32,
    }
}

body! {
    /// SERVER_LIST_CLIENTS answers.
    Clients<'a> {
        /// The clients.
        clients: List<ClientName<'a>, MAX_LIST>,
        /// How many there are.
        count: u32,
    }
}

body! {
    /// SERVER_LOOKUP_CLIENT asks.
    LookupClient<'a> {
        /// Of which server.
        server: ServerName<'a>,
        /// Which.
        id: u64,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// About a client: CLIENT_GET_INFO and CLIENT_CLOSE ask.
    OfClient<'a> {
        /// Which.
        client: ClientName<'a>,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// CLIENT_GET_INFO answers.
    ClientInfo<'a> {
        /// What is known of it.
        parameters: List<Parameter<'a>, MAX_CLIENT_PARAMETERS>,
    }
}

body! {
    /// CONNECT_GET_LOGGING_OUTPUTS answers.
    Outputs<'a> {
        /// The outputs.
        text: Text<'a>,
        /// How many they are.
        count: u32,
    }
}

body! {
    /// CONNECT_GET_LOGGING_FILTERS answers.
    Filters<'a> {
        /// The filters, if there are any.
        text: Option<Text<'a>>,
        /// How many they are.
        count: u32,
    }
}

body! {
    /// The two SET_LOGGING calls ask.
    SetLogging<'a> {
        /// What shall be; none: the usual.
        text: Option<Text<'a>>,
        /// None are known.
        flags: u32,
    }
}

body! {
    /// CONNECT_SET_DAEMON_TIMEOUT asks.
    SetTimeout {
        /// Seconds without clients until the daemon ends; 0: never.
        seconds: u32,
        /// None are known.
        flags: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::typed::Typed;
    use crate::rpc::xdr::{Decode, Encode, Malformed, Reader};

    #[test]
    fn more_parameters_than_a_call_may_have_are_refused() {
        let set = |count| {
            let parameter = Parameter { name: Text(b"maxWorkers"), value: Typed::UInt(20) };
            let server = ServerName { name: Text(b"admin") };
            let parameters = List(vec![parameter; count]);
            let mut bytes = Vec::new();
            SetOfServer { server, parameters, flags: 0 }.encode(&mut bytes);
            SetOfServer::decode(&mut Reader::new(&bytes)).map(|set| set.parameters.0.len())
        };
        assert_eq!(set(32), Ok(32));
        assert_eq!(set(33), Err(Malformed));
    }
}
