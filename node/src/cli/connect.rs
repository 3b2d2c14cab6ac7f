//! A command's connection to a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ringhold_cluster::control::admin;
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Files, Identity, Role};
use ringhold_cluster::wire::{
    ActorState, ActorType, DeadLetters, DeviceStatus, Health, LetterFilter, LettersDone, Request, Response, Status,
};
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::Reason;
use tokio::time::timeout;

use super::exit::{self, Failure};
use super::{Globals, config};
use crate::client::{AskError, Client, Error, Options};
use crate::config::{Config, Format, Log};
use crate::logs;

/// A connected node, whose errors are failures of the command.
pub struct Connection {
    client: Client,
    limit: Duration,
}

/// Connects, does the work, and closes.
pub fn run(globals: &Globals, work: impl AsyncFnOnce(&Connection) -> Result<u8, Failure>) -> Result<u8, Failure> {
    connect(globals, true, work)
}

/// The same to talk to actors: what a node that is full or sheds load does not let in.
pub fn run_with_actors(
    globals: &Globals,
    work: impl AsyncFnOnce(&Connection) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    connect(globals, false, work)
}

fn connect(
    globals: &Globals,
    admin: bool,
    work: impl AsyncFnOnce(&Connection) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    logs::start(&Log { level: logs::level_of_client(globals.verbose), format: Format::Text });
    let options = Options { admin, ..options(globals)? };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::FAILED, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let client = Client::connect(options).await.map_err(failure)?;
        let node = Connection { client, limit: globals.deadline };
        let result = work(&node).await;
        // The node is told, so that it need not find out. One that goes away now is none of this command's business.
        let _ = timeout(CLOSE_LIMIT, node.client.close()).await;
        result
    })
}

const CLOSE_LIMIT: Duration = Duration::from_millis(500);

fn options(globals: &Globals) -> Result<Options, Failure> {
    // A node's file may be wrong for this machine and still say where the node is; so only reading it can fail.
    let config = match &globals.config {
        Some(file) => Config::load(Some(file), &config::overrides(globals))?,
        None => Config::default(),
    };
    let address = globals.address.clone().unwrap_or_else(|| reachable(config.node.listen).to_string());
    let data_dir = globals.data_dir.as_ref().unwrap_or(&config.node.data_dir);
    let folder = globals.tls.clone().unwrap_or_else(|| data_dir.join("tls"));
    let mut files = Files::client(&folder);
    if !files.ca.exists() {
        let message = match &globals.tls {
            Some(folder) => return Err(Failure::usage(format!("the folder {} holds no ca.pem", folder.display()))),
            None => format!(
                "no node answers at {address}, as far as can be told from here: {} does not exist, so no node has \
                 been started with this data folder. Start one with `ringhold node start`, name the folder of the \
                 one that runs with --data-dir, or certificates with --tls",
                files.ca.display()
            ),
        };
        return Err(Failure::new(exit::UNREACHABLE, message));
    }
    // Without a certificate the node itself says what to do.
    files.own = files.own.filter(|(certificate, _)| certificate.exists());
    let identity = Identity::load(files, Role::Client, &RealNetwork)
        .map_err(|error| Failure::new(exit::REFUSED, error.to_string()))?;
    let mut options = Options::new(address, identity);
    options.ask_deadline = globals.deadline;
    options.connect_deadline = globals.deadline;
    options.reconnect_limit = Some(globals.deadline);
    options.name = format!("ringhold {} (command line)", env!("CARGO_PKG_VERSION"));
    Ok(options)
}

/// Where to reach a node that listens on all addresses: on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Asks for one kind of answer.
macro_rules! request {
    ($self:ident, $request:expr, $answer:ident) => {
        match $self.client.request($request, $self.limit).await.map_err(failure)? {
            Response::$answer(answer) => Ok(answer),
            _ => Err(Failure::new(exit::FAILED, "the node answered another question: use a client of its release")),
        }
    };
}

impl Connection {
    pub async fn status(&self) -> Result<Status, Failure> {
        request!(self, Request::Status, Status).map(|status| *status)
    }

    pub async fn devices(&self) -> Result<Vec<DeviceStatus>, Failure> {
        request!(self, Request::Devices, Devices)
    }

    /// Returns the names of the device's backends that had been left alone.
    pub async fn retry(&self, device: &str) -> Result<Vec<String>, Failure> {
        request!(self, Request::Retry { device: device.into() }, Retrying)
    }

    /// Returns the name of the backend that the device is to go on with.
    pub async fn leave_backend(&self, device: &str) -> Result<String, Failure> {
        request!(self, Request::LeaveBackend { device: device.into() }, LeavingBackend)
    }

    /// Asks about the cluster, or changes it.
    pub async fn cluster(&self, request: admin::Request) -> Result<admin::Response, Failure> {
        request!(self, Request::Cluster(request), Cluster)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long the command may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    pub async fn health(&self) -> Result<Health, Failure> {
        request!(self, Request::Health, Health)
    }

    pub async fn dead_letters(&self, filter: LetterFilter, limit: u32) -> Result<DeadLetters, Failure> {
        request!(self, Request::DeadLetters { filter, limit }, DeadLetters)
    }

    /// Waits for room as long as the command may take.
    pub async fn retry_dead_letters(&self, filter: LetterFilter) -> Result<LettersDone, Failure> {
        // A little less than the client waits, so that there is an answer.
        let timeout_ms = self.limit.as_millis() as u64 * 9 / 10;
        request!(self, Request::RetryDeadLetters { filter, timeout_ms }, DeadLettersDone)
    }

    pub async fn drop_dead_letters(&self, filter: LetterFilter) -> Result<LettersDone, Failure> {
        request!(self, Request::DropDeadLetters { filter }, DeadLettersDone)
    }

    pub async fn actor_types(&self) -> Result<Vec<ActorType>, Failure> {
        request!(self, Request::ActorTypes, ActorTypes)
    }

    pub async fn inspect(&self, type_id: TypeId, key: Key) -> Result<ActorState, Failure> {
        request!(self, Request::Inspect { type_id, key: key.into() }, Inspected)
    }

    /// Returns once the node has the message.
    pub async fn tell(&self, to: ActorId, payload: &[u8]) -> Result<(), Failure> {
        let told = async {
            self.client.tell_raw(to, payload).await?;
            self.client.flush().await
        };
        match timeout(self.limit, told).await {
            Ok(told) => told.map_err(failure),
            Err(_) => Err(Failure::new(
                exit::DEADLINE,
                format!("the node did not take the message within {} ms; it may still do so", self.limit.as_millis()),
            )),
        }
    }

    /// `name` is what errors call the actor.
    pub async fn ask(&self, to: ActorId, payload: &[u8], name: &str) -> Result<Vec<u8>, Failure> {
        let name = || name.to_string();
        self.client.ask_raw(to, payload, self.limit).await.map_err(|error| {
            ask_failure(match error {
                AskError::NotHandled { reason, text, .. } => AskError::NotHandled { actor: name(), reason, text },
                AskError::Deadline { waited, .. } => AskError::Deadline { actor: name(), waited },
                AskError::ConnectionLost { .. } => AskError::ConnectionLost { actor: name() },
                AskError::Reply { bytes, .. } => AskError::Reply { actor: name(), bytes },
                AskError::NotSent(error) => AskError::NotSent(error),
            })
        })
    }

    pub fn payload_bytes_max(&self) -> u32 {
        self.client.welcome().payload_bytes_max
    }
}

pub fn failure(error: Error) -> Failure {
    let code = match &error {
        Error::Unreachable { address, detail } => {
            let message = format!(
                "no node answers at {address}: start one with `ringhold node start`, or name another with --address \
                 ({detail})"
            );
            return Failure::new(exit::UNREACHABLE, message);
        }
        Error::ConnectionLost { .. } => exit::UNREACHABLE,
        Error::CertificateRequired { .. }
        | Error::CertificateRefused { .. }
        | Error::ForeignNode { .. }
        | Error::NotRinghold { .. }
        | Error::Refused { .. } => exit::REFUSED,
        Error::NoAddress
        | Error::Resolve { .. }
        | Error::UnknownType { .. }
        | Error::TooLarge { .. }
        | Error::NotRegistered { .. } => exit::USAGE,
        Error::Failed(failed) => failed.reason().map_or(exit::FAILED, reason_code),
        Error::Timeout { .. } => exit::DEADLINE,
        Error::Setup(_) | Error::Closed | Error::Protocol { .. } => exit::FAILED,
    };
    Failure::new(code, error.to_string())
}

fn ask_failure(error: AskError) -> Failure {
    match error {
        AskError::NotSent(error) => failure(error),
        error => Failure::new(error.reason().map_or(exit::FAILED, reason_code), error.to_string()),
    }
}

fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::DeadlineExceeded => exit::DEADLINE,
        Reason::ConnectionLost | Reason::Stopping | Reason::Unreachable => exit::UNREACHABLE,
        Reason::UnknownType | Reason::Malformed | Reason::TooLarge | Reason::WrongType => exit::USAGE,
        Reason::FaultDivisionByZero
        | Reason::FaultIndexOutOfBounds
        | Reason::FaultClampBounds
        | Reason::NoReply
        | Reason::Rejected
        | Reason::DroppedOldest
        | Reason::DroppedNewest
        | Reason::StateLost
        | Reason::NoActor
        | Reason::NoDevice
        | Reason::OutOfMemory
        | Reason::Overloaded
        | Reason::Poison => exit::ACTOR,
    }
}
