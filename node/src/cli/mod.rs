//! The command line: what the binary does when it is not a device host.
//!
//! Tables and messages are for people; with `--json` stdout holds exactly one JSON value, for programs, whatever
//! happens. Logs and messages about errors go to stderr in either case. `exit` has the exit codes.

mod actor;
mod backup;
mod cluster;
mod config;
mod connect;
mod deadletter;
mod demo;
#[cfg(test)]
mod deployed;
mod devices;
mod exit;
mod health;
mod node;
mod output;
mod status;
mod storage;
mod top;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ringhold_kernels::registry::Registry;

use crate::config::rule;
use crate::device::{cuda, host};
use exit::Failure;
use output::Output;
pub(crate) use output::utc;

/// Actors that live on GPUs: nodes that run them, and what talks to nodes.
#[derive(Parser)]
#[command(name = "ringhold", version, after_help = exit::HELP, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
struct Globals {
    /// Print one JSON value on stdout instead of tables
    #[arg(long, global = true)]
    json: bool,

    /// The node to talk to [default: `listen` of the configuration, 127.0.0.1:7420]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    address: Option<String>,

    /// The node's data folder, where clients on its machine find their certificate too [default: ringhold-data]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,

    /// A folder with ca.pem, client.pem and client.key to talk to the node with [default: `tls` in the data folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    tls: Option<PathBuf>,

    /// A configuration file; without one every field has its default
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How long to wait for the node, and for a reply: 500ms, 5s, 1m
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = time)]
    deadline: Duration,

    /// Log more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Run a year of flights through actors, and check every actor's state
    Demo(crate::demo::Options),

    /// Run a node
    #[command(subcommand)]
    Node(NodeCommand),

    /// Look after the cluster that the node belongs to, at any of its nodes
    #[command(subcommand)]
    Cluster(ClusterCommand),

    /// Show the node: its devices, its clients, what it could not deliver
    Status,

    /// Watch what the nodes of the cluster do; with --json, one line for each look
    Top(top::Options),

    /// Show this machine's GPUs and cores, and the node's devices and their workers
    ///
    /// The machine is not shown where --address names a node: it may run on another one.
    Devices {
        #[command(subcommand)]
        command: Option<DevicesCommand>,
    },

    /// Say whether the node lives, is ready, or how its devices do; the exit code is 1 where the answer is no
    Health {
        /// What to ask: of these, devices asks whether each device works
        #[arg(value_enum, default_value_t = HealthOf::Ready)]
        of: HealthOf,
    },

    /// Look after messages that nobody handled: they are kept with the reason
    #[command(subcommand, name = "deadletter")]
    DeadLetter(DeadLetterCommand),

    /// Talk to actors
    #[command(subcommand)]
    Actor(ActorCommand),

    /// Look after the checkpoints in a data folder that no node has open
    #[command(subcommand)]
    Storage(StorageCommand),

    /// Write and check configuration files
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Start a node and run it until SIGTERM or SIGINT; then it finishes what it has and exits with 0
    ///
    /// With --json, one line on stdout says where the node listens once it does.
    Start {
        /// The address to listen at, in place of the configured one; port 0 takes any free port
        #[arg(long, value_name = "IP:PORT")]
        listen: Option<SocketAddr>,

        /// Nodes of a cluster to join, in place of the configured ones; a node that belongs to it already goes on there
        #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
        join: Vec<String>,

        /// A file with a token of that cluster (`ringhold cluster token`), for a node without certificates of it; - reads stdin
        #[arg(long, value_name = "FILE", requires = "join")]
        token: Option<PathBuf>,
    },

    /// Give a node nothing more to own, so that it can be removed
    Drain {
        /// Its number or name: see `ringhold cluster nodes`
        node: String,

        /// Let it be given shards again
        #[arg(long)]
        undo: bool,
    },

    /// Take a node that owns nothing out of the cluster; it cannot come back but as a new one
    Remove {
        /// Its number or name: see `ringhold cluster nodes`
        node: String,

        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Make a data folder the first node's of a new cluster; `ringhold node start` does so by itself where there is none
    Init,

    /// Show the cluster: who leads, who votes, and whether a majority agrees
    Status,

    /// List the nodes
    Nodes,

    /// List the devices of all nodes
    Devices,

    /// Show which device owns which shards
    Shards,

    /// Show what would be best moved between the devices of all nodes, and why; nothing is moved
    Plan,

    /// Move what `plan` says
    Rebalance {
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },

    /// Move shards to another device, of the same node or of another, while both are at work
    Migrate {
        /// Which: 7, or 0-63,128-191; all of one device
        shards: String,

        /// The device's number: see `ringhold cluster devices`
        #[arg(long)]
        to: u16,
    },

    /// List the settings that hold for the whole cluster, or set some
    Settings {
        /// What to set
        #[arg(value_name = "NAME=VALUE")]
        set: Vec<String>,
    },

    /// Write a backup of the whole cluster, as it is at one moment, to a folder on this machine
    Backup {
        /// One that is not there yet
        folder: PathBuf,
    },

    /// Make a data folder (--data-dir) the first node's of a new cluster that goes on from a backup
    Restore {
        /// The folder of the backup
        folder: PathBuf,
    },

    /// Make a token by which one node can join, once
    ///
    /// Whoever has it can become a node of the cluster: give it on as you would a password.
    Token {
        /// How long it is good: 10m, 1h
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
        valid: Duration,
    },
}

#[derive(Subcommand)]
enum DevicesCommand {
    /// Have a device go on with its fallback, so that its GPU can be seen to; `retry` brings it back
    Fallback {
        /// The device's name
        device: String,
    },

    /// Have a device that has fallen back, or was made to, try its own GPU again: somebody has seen to that
    Retry {
        /// The device's name
        device: String,
    },
}

#[derive(Subcommand)]
enum ActorCommand {
    /// Show the node's actor types, or the messages of one
    Types {
        /// Show this type's state, messages and replies
        name: Option<String>,
    },

    /// Send a message and do not wait for a reply
    Tell(MessageArgs),

    /// Send a message and print the reply
    Ask(MessageArgs),

    /// Show the state of an actor
    Inspect {
        #[command(flatten)]
        actor: ActorArgs,
    },
}

#[derive(Args)]
struct ActorArgs {
    /// The actor's type: see `ringhold actor types`
    #[arg(value_name = "TYPE")]
    type_name: String,

    /// The actor's key: a number, a name of up to 8 bytes, or hash:TEXT for longer text
    key: String,
}

#[derive(Args)]
struct MessageArgs {
    #[command(flatten)]
    actor: ActorArgs,

    /// The message: '{"Deposit": {"cents": 5}}', '"Read"' or Read; - reads it from stdin
    message: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum HealthOf {
    Live,
    Ready,
    Devices,
}

#[derive(Subcommand)]
enum DeadLetterCommand {
    /// List them, the newest first
    List {
        #[command(flatten)]
        which: WhichLetters,

        /// How many, at most
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },

    /// Show one: its message, its actor, why it was not handled, and which device hosts it ended, if it did
    Show { number: u64 },

    /// Send them again, the oldest first; each is kept until its device has it
    ///
    /// They are sent as tells: nobody waits for the reply to an ask any more. A message that was put aside because it ended
    /// device hosts is run again.
    Retry(LetterArgs),

    /// Forget them
    Drop(LetterArgs),
}

#[derive(Args)]
struct WhichLetters {
    /// Only messages to actors of this type
    #[arg(long = "type", value_name = "TYPE")]
    to_type: Option<String>,

    /// Only those with this reason: poison, no_actor, …
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args)]
struct LetterArgs {
    /// Their numbers: see `ringhold deadletter list`
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,

    #[command(flatten)]
    which: WhichLetters,

    /// All there are
    #[arg(long, conflicts_with = "numbers")]
    all: bool,

    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Subcommand)]
enum StorageCommand {
    /// List the checkpoints
    List,

    /// Read every byte, and say what is damaged and what it costs; the exit code is 1 where anything is
    Verify,

    /// Show what a checkpoint holds, or the state of one actor in it
    Show {
        /// The device's name: see `ringhold storage list`
        device: String,

        /// An actor's type, to show one actor
        #[arg(value_name = "TYPE", requires = "key")]
        type_name: Option<String>,

        /// The actor's key: a number, a name of up to 8 bytes, or hash:TEXT for longer text
        key: Option<String>,

        /// Which checkpoint [default: the newest whole one]
        #[arg(long)]
        epoch: Option<u64>,
    },

    /// Make one full checkpoint of each device's chain of changes, and remove what is not kept
    Compact {
        /// Only this device's
        device: Option<String>,
    },

    /// Write each device's newest whole checkpoint to one file
    Export {
        file: PathBuf,

        /// Only this device's
        #[arg(long)]
        device: Option<String>,
    },

    /// Take checkpoints from a file, in place of all there are of the same devices
    ///
    /// The folder must be of the node that exported them, or new. It asks before it replaces anything.
    Import {
        file: PathBuf,

        /// Replace what is there without asking
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print a configuration file that documents every field and holds the defaults
    Default,

    /// Check a configuration file and list all errors
    Check {
        /// The file [default: that of --config, or the defaults on this machine]
        file: Option<PathBuf>,
    },
}

/// Runs the command that the process's arguments name, with these actor types.
///
/// It is all that a binary's `main` needs:
///
/// ```no_run
/// # use ringhold_kernels::registry::Registry;
/// fn main() -> std::process::ExitCode {
///     let mut registry = Registry::new();
///     // registry.register::<my_actor::Actor>() for each type
///     ringhold::cli::main(registry)
/// }
/// ```
pub fn main(registry: Registry) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned());
    match arguments.next().as_deref() {
        Some(host::ROLE) => return end(node::device_host(arguments, registry), Output { json: false }),
        Some(cuda::PROBE) => return ExitCode::from(node::gpu_probe()),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Also `--help` and `--version`, which are no failures.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let output = Output { json: cli.globals.json };
    end(run(cli, registry, output), output)
}

fn end(result: Result<u8, Failure>, output: Output) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => output.failure(&failure),
    }
}

fn run(cli: Cli, registry: Registry, output: Output) -> Result<u8, Failure> {
    let globals = &cli.globals;
    match cli.command {
        Command::Demo(options) => demo::run(&options, globals, registry, output),
        Command::Node(NodeCommand::Start { listen, join, token }) => {
            node::start(globals, node::Start { listen, join, token }, registry, output)
        }
        Command::Node(NodeCommand::Drain { node, undo }) => cluster::drain(globals, &node, !undo, output),
        Command::Node(NodeCommand::Remove { node, yes }) => cluster::remove(globals, &node, yes, output),
        Command::Cluster(command) => cluster::run(&command, globals, &registry, output),
        Command::Status => status::status(globals, output),
        Command::Top(options) => top::run(&options, globals, output),
        Command::Devices { command: None } => devices::run(globals, output),
        Command::Devices { command: Some(DevicesCommand::Fallback { device }) } => {
            devices::fallback(globals, &device, output)
        }
        Command::Devices { command: Some(DevicesCommand::Retry { device }) } => {
            devices::retry(globals, &device, output)
        }
        Command::Health { of } => health::run(globals, of, output),
        Command::DeadLetter(command) => deadletter::run(&command, globals, output),
        Command::Actor(ActorCommand::Types { name }) => actor::types(globals, name.as_deref(), output),
        Command::Actor(ActorCommand::Tell(message)) => actor::tell(globals, &message, output),
        Command::Actor(ActorCommand::Ask(message)) => actor::ask(globals, &message, output),
        Command::Actor(ActorCommand::Inspect { actor }) => actor::inspect(globals, &actor, output),
        Command::Storage(command) => storage::run(&command, globals, &registry, output),
        Command::Config(ConfigCommand::Default) => config::default(output),
        Command::Config(ConfigCommand::Check { file }) => {
            config::check(file.as_deref().or(globals.config.as_deref()), globals, output)
        }
        Command::Completions { shell } => {
            // Written at once, so that a reader that has seen enough is no panic.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ringhold", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            Ok(exit::OK)
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match rule::span_ms(text) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("write a whole number and a unit: 500ms, 5s, 1m".into()),
    }
}
