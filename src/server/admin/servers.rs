//! libvirt's ADMIN program: the daemon's two servers, their threads, limits and clients.
//!
//! Leans on `clients` and `workers` for what there is. Refuses to show anything but the kernel's word on who a client is,
//! and what it has proved by a certificate or by SASL: what it says of itself by CONNECT_SET_IDENTITY is not told here, as libvirt would. Reads users' names where it may
//! block: they may come over a network.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::super::clients::{Client, Limits, Way};
use super::super::outgoing::Outgoing;
use super::super::parameters;
use super::super::serve::Server;
use super::super::session::{Action, Call, Held, reply};
use super::libvirt::{check_flags, number};
use super::{Calls, failure};
use crate::rpc::admin::{self, ClientName, ServerName};
use crate::rpc::typed::{Parameter, Typed};
use crate::rpc::xdr::List;
use crate::rpc::{Header, Text};
use crate::secret::Error;

impl Calls {
    /// The server of this name.
    pub(super) fn server(&self, server: &ServerName<'_>) -> Result<&Server, Error> {
        self.find(server).ok_or_else(|| failure::no_server(&server.name.to_text()))
    }

    fn find(&self, server: &ServerName<'_>) -> Option<&Server> {
        [&self.host.admin, &self.host.main].into_iter().find(|it| it.name.as_bytes() == server.name.0)
    }

    pub(super) fn pool(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::OfServer<'_> = call.read()?;
        let workers = &self.server(&asked.server)?.shared.workers;
        check_flags(asked.flags, "adminServerGetThreadPoolParameters", 0)?;
        let (pool, (busy, waiting)) = (workers.pool(), workers.count());
        let reactor = number(tokio::runtime::Handle::current().metrics().num_workers());
        Ok(Action::Send(call.reply(&numbers(&[
            (MIN_WORKERS, pool.min),
            (MAX_WORKERS, pool.max),
            ("nWorkers", reactor.saturating_add(busy)),
            ("freeWorkers", reactor),
            (PRIORITY_WORKERS, pool.priority),
            ("jobQueueDepth", waiting),
        ]))))
    }

    pub(super) fn set_pool(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::SetOfServer<'_> = call.read()?;
        let server = self.server_to_set(&asked)?;
        check_flags(asked.flags, "adminServerSetThreadPoolParameters", 0)?;
        let known = [MIN_WORKERS, MAX_WORKERS, PRIORITY_WORKERS].map(|name| (name, "uint"));
        parameters::check(&asked.parameters.0, &known)?;
        let wanted = |name, before| number_of(&asked, name).unwrap_or(before);
        server.shared.workers.set(|mut pool| {
            pool.min = wanted(MIN_WORKERS, pool.min);
            pool.max = wanted(MAX_WORKERS, pool.max);
            pool.priority = wanted(PRIORITY_WORKERS, pool.priority);
            pool
        })?;
        Ok(Action::Send(call.reply(&())))
    }

    pub(super) fn limits(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::OfServer<'_> = call.read()?;
        let clients = &self.server(&asked.server)?.clients;
        check_flags(asked.flags, "adminServerGetClientLimits", 0)?;
        let (limits, (all, anonymous)) = (clients.limits(), clients.count());
        Ok(Action::Send(call.reply(&numbers(&[
            (MOST_CLIENTS, number(limits.clients)),
            ("nclients", number(all)),
            (MOST_ANONYMOUS, number(limits.anonymous)),
            ("nclients_unauth", number(anonymous)),
        ]))))
    }

    pub(super) fn set_limits(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::SetOfServer<'_> = call.read()?;
        let server = self.server_to_set(&asked)?;
        check_flags(asked.flags, "adminServerSetClientLimits", 0)?;
        parameters::check(&asked.parameters.0, &[MOST_CLIENTS, MOST_ANONYMOUS].map(|name| (name, "uint")))?;
        let before = server.clients.limits();
        let wanted = |name, before| {
            number_of(&asked, name).map_or(before, |count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let limits = Limits {
            clients: wanted(MOST_CLIENTS, before.clients),
            anonymous: wanted(MOST_ANONYMOUS, before.anonymous),
        };
        if limits.clients < limits.anonymous {
            return Err(failure::fewer_clients_than_anonymous());
        }
        server.clients.set_limits(limits);
        Ok(Action::Send(call.reply(&())))
    }

    fn server_to_set(&self, asked: &admin::SetOfServer<'_>) -> Result<&Server, Error> {
        let server = &asked.server;
        self.find(server).ok_or_else(|| failure::no_matching_server(&server.name.to_text()))
    }

    pub(super) fn list_clients(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::ListClients<'_> = call.read()?;
        let server = self.server(&asked.server)?;
        check_flags(asked.flags, "adminServerListClients", 0)?;
        let found = server.clients.list();
        let clients = match asked.need_results {
            0 => Vec::new(),
            _ if found.len() > admin::MAX_LIST => {
                return Err(failure::too_many_clients(found.len(), admin::MAX_LIST));
            }
            _ => found.iter().map(|client| name_of(client, server)).collect(),
        };
        Ok(Action::Send(call.reply(&admin::Clients { clients: List(clients), count: number(found.len()) })))
    }

    pub(super) fn lookup_client(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::LookupClient<'_> = call.read()?;
        let server = self.server(&asked.server)?;
        check_flags(asked.flags, "adminServerLookupClient", 0)?;
        let client = server.clients.find(asked.id).ok_or_else(|| failure::no_client(asked.id))?;
        Ok(Action::Send(call.reply(&name_of(&client, server))))
    }

    pub(super) fn client_info(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::OfClient<'_> = call.read()?;
        let ClientName { server, id, .. } = asked.client;
        let server = self.find(&server).ok_or_else(|| failure::no_matching_server(&server.name.to_text()))?;
        let client = server.clients.find(id).ok_or_else(|| failure::no_matching_client(id))?;
        check_flags(asked.flags, "adminClientGetInfo", 0)?;
        Ok(Action::work(call.header, self.peer, Held::Ordinary(0), move |call| Ok(info(&client, call))))
    }

    pub(super) fn close_client(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: admin::OfClient<'_> = call.read()?;
        let server = self.server(&asked.client.server)?;
        let client = server.clients.find(asked.client.id);
        let client = client.ok_or_else(|| failure::no_client(asked.client.id))?;
        check_flags(asked.flags, "adminClientClose", 0)?;
        if client.id == self.id && std::ptr::eq(server, &raw const self.host.admin) {
            return Ok(Action::Drop); // who closes itself hears no more
        }
        tracing::info!("client {} of {} is closed by {}", client.id, server.name, self.peer);
        client.dismiss();
        Ok(Action::Send(call.reply(&())))
    }
}

fn name_of<'a>(client: &Arc<Client>, server: &Server) -> ClientName<'a> {
    let since = client.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    ClientName {
        server: ServerName { name: server.name.into() },
        id: client.id,
        since: since.cast_signed(),
        transport: match client.way {
            Way::Unix => admin::TRANSPORT_UNIX,
            Way::Tcp => admin::TRANSPORT_TCP,
            Way::Tls => admin::TRANSPORT_TLS,
        },
    }
}

/// Who a client is, as a reply: by the kernel's word, and by what it has proved. The names of its user and group are
/// those that the host has.
fn info(client: &Client, call: Header) -> Outgoing {
    fn text(text: &str) -> Typed<'_> {
        Typed::String(Text(text.as_bytes()))
    }
    let number = |number: u32| Typed::Int(number.cast_signed());
    let process = client.peer.process();
    let user = process.and_then(|process| uzers::get_user_by_uid(process.uid));
    let group = process.and_then(|process| uzers::get_group_by_gid(process.gid));
    let address = client.peer.address().map(|address| address.to_string());
    let user = user.as_ref().map(|user| Typed::String(Text(user.name().as_encoded_bytes())));
    let group = group.as_ref().map(|group| Typed::String(Text(group.name().as_encoded_bytes())));
    let known = [
        ("readonly", Some(Typed::Boolean(client.read_only.load(Ordering::Relaxed)))),
        ("unix_user_id", process.map(|process| number(process.uid))),
        ("unix_user_name", user),
        ("unix_group_id", process.map(|process| number(process.gid))),
        ("unix_group_name", group),
        ("unix_process_id", process.and_then(|process| process.pid).map(number)),
        ("sock_addr", address.as_deref().map(text)),
        ("sasl_user_name", client.user().map(text)),
        ("tls_x509_dname", client.certified.as_deref().map(text)),
    ];
    let parameter =
        |(name, value): (&'static str, Option<_>)| Some(Parameter { name: name.into(), value: value? });
    reply(call, &admin::ClientInfo { parameters: List(known.into_iter().filter_map(parameter).collect()) })
}

fn numbers<'a>(numbers: &[(&'static str, u32)]) -> admin::Parameters<'a> {
    let parameter =
        |&(name, number): &(&'static str, u32)| Parameter { name: name.into(), value: Typed::UInt(number) };
    admin::Parameters { parameters: List(numbers.iter().map(parameter).collect()) }
}

/// What a parameter shall be, if it is among those to set.
fn number_of(asked: &admin::SetOfServer<'_>, name: &str) -> Option<u32> {
    asked.parameters.0.iter().find_map(|parameter| match parameter.value {
        Typed::UInt(number) if parameter.name.0 == name.as_bytes() => Some(number),
        _ => None,
    })
}

const MIN_WORKERS: &str = "minWorkers";
const MAX_WORKERS: &str = "maxWorkers";
const PRIORITY_WORKERS: &str = "prioWorkers";
const MOST_CLIENTS: &str = "nclients_max";
const MOST_ANONYMOUS: &str = "nclients_unauth_max";
