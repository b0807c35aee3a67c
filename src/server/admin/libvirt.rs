//! libvirt's ADMIN program: which call is which, and those on the daemon as a whole.
//!
//! Leans on `servers` for the rest. Refuses what libvirt refuses, in its order: first a server or client that isn't there,
//! then flags, then parameters. (CONNECT_LOOKUP_SERVER looks at no flags; nor do we.)

use std::sync::atomic::Ordering;

use super::super::LIBVIRT_LEVEL;
use super::super::failure::no_procedure;
use super::super::log::Unusable;
use super::super::session::{Action, Call, Held, reply};
use super::{Calls, failure};
use crate::rpc::Text;
use crate::rpc::admin::{self, procedure};
use crate::rpc::remote::Version;
use crate::rpc::xdr::List;
use crate::secret::{Error, ErrorDomain};

impl Calls {
    pub(super) fn libvirt(&self, call: &Call<'_>) -> Result<Action, Error> {
        let done = || Ok(Action::Send(call.reply(&())));
        match call.header.procedure {
            procedure::CONNECT_OPEN => {
                flags(call, "adminDispatchConnectOpen", 0)?;
                done()
            }
            procedure::CONNECT_CLOSE => Ok(Action::Last(call.reply(&()))),
            procedure::CONNECT_GET_LIB_VERSION => {
                Ok(Action::Send(call.reply(&Version { version: LIBVIRT_LEVEL })))
            }
            procedure::CONNECT_LIST_SERVERS => self.list_servers(call),
            procedure::CONNECT_LOOKUP_SERVER => {
                let asked: admin::OfServer<'_> = call.read()?;
                self.server(&asked.server)?;
                Ok(Action::Send(call.reply(&asked.server)))
            }
            procedure::SERVER_GET_THREADPOOL_PARAMETERS => self.pool(call),
            procedure::SERVER_SET_THREADPOOL_PARAMETERS => self.set_pool(call),
            procedure::SERVER_LIST_CLIENTS => self.list_clients(call),
            procedure::SERVER_LOOKUP_CLIENT => self.lookup_client(call),
            procedure::CLIENT_GET_INFO => self.client_info(call),
            procedure::CLIENT_CLOSE => self.close_client(call),
            procedure::SERVER_GET_CLIENT_LIMITS => self.limits(call),
            procedure::SERVER_SET_CLIENT_LIMITS => self.set_limits(call),
            procedure::CONNECT_GET_LOGGING_OUTPUTS => {
                flags(call, "adminConnectGetLoggingOutputs", 0)?;
                let (text, count) = self.host.log.outputs();
                let outputs = admin::Outputs { text: text.as_str().into(), count: number(count) };
                Ok(Action::Send(call.reply(&outputs)))
            }
            procedure::CONNECT_GET_LOGGING_FILTERS => {
                flags(call, "adminConnectGetLoggingFilters", 0)?;
                let (text, count) = self.host.log.filters();
                let text = (count > 0).then(|| text.as_str().into());
                Ok(Action::Send(call.reply(&admin::Filters { text, count: number(count) })))
            }
            procedure::CONNECT_SET_LOGGING_OUTPUTS => self.set_outputs(call),
            procedure::CONNECT_SET_LOGGING_FILTERS => {
                let asked: admin::SetLogging<'_> = call.read()?;
                check_flags(asked.flags, "adminConnectSetLoggingFilters", 0)?;
                let text = asked.text.map(Text::to_text).unwrap_or_default();
                self.host.log.set_filters(&text).map_err(|error| failure::invalid(error.to_string()))?;
                done()
            }
            procedure::SERVER_UPDATE_TLS_FILES => {
                let asked: admin::OfServer<'_> = call.read()?;
                let server = self.server(&asked.server)?;
                check_flags(asked.flags, "adminServerUpdateTlsFiles", 0)?;
                let is_main = std::ptr::eq(server, &raw const self.host.main);
                let tls = self.host.tls.clone().filter(|_| is_main).ok_or_else(failure::no_tls)?;
                let peer = self.peer;
                Ok(Action::work(call.header, peer, Held::Ordinary(0), move |call| {
                    tls.reload()?;
                    tracing::info!("the certificates for TLS are read anew ({peer})");
                    Ok(reply(call, &()))
                }))
            }
            procedure::CONNECT_SET_DAEMON_TIMEOUT => {
                let asked: admin::SetTimeout = call.read()?;
                check_flags(asked.flags, "adminConnectSetDaemonTimeout", 0)?;
                self.host.timeout.store(asked.seconds, Ordering::Relaxed);
                done()
            }
            procedure::CONNECT_DAEMON_SHUTDOWN => {
                flags(call, "adminConnectDaemonShutdown", admin::SHUTDOWN_PRESERVE)?;
                tracing::info!("told to end by {}", self.peer);
                _ = self.host.stop.send(true);
                done()
            }
            _ => Err(no_procedure(&call.header)),
        }
    }

    fn list_servers(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::ListServers = call.read()?;
        check_flags(asked.flags, "adminConnectListServers", 0)?;
        let names = [self.host.admin.name, self.host.main.name];
        let servers = names.map(|name| admin::ServerName { name: name.into() });
        let count = number(servers.len());
        let servers = List(if asked.need_results == 0 { Vec::new() } else { servers.into() });
        Ok(Action::Send(call.reply(&admin::Servers { servers, count })))
    }

    /// Opening a file may block.
    fn set_outputs(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::SetLogging<'_> = call.read()?;
        check_flags(asked.flags, "adminConnectSetLoggingOutputs", 0)?;
        let text = asked.text.map(Text::to_text).unwrap_or_default();
        let log = self.host.log.clone();
        Ok(Action::work(call.header, self.peer, Held::Ordinary(0), move |call| {
            log.set_outputs(&text).map_err(|error| match error {
                Unusable::Malformed(error) => failure::invalid(error.to_string()),
                Unusable::Unopened(doing, error) => Error::system(doing, &error).in_domain(ErrorDomain::None),
            })?;
            Ok(reply(call, &()))
        }))
    }
}

/// For calls that have flags only.
fn flags(call: &Call<'_>, function: &'static str, known: u32) -> Result<(), Error> {
    let asked: admin::Flags = call.read()?;
    check_flags(asked.flags, function, known)
}

/// Refuses flags that the call, by libvirt's name for it, doesn't know.
pub(super) fn check_flags(flags: u32, function: &'static str, known: u32) -> Result<(), Error> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Error::unsupported_admin_flags(unknown, function)),
    }
}

/// As the wire counts.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
