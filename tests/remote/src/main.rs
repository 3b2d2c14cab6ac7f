//! Remote actors of other frameworks, for the bench program `cluster`, which calls this one: an actor of one process is told or
//! asked by another process on this machine.
//!
//! ```text
//! ringhold-remote-peers ractor|kameo tell --messages N --bytes B
//! ringhold-remote-peers ractor|kameo ask  --messages N --bytes B
//! ```
//!
//! Each starts itself as the process that has the actor, warms up, measures, and prints one JSON object: `{"elapsed_s": …}` from the
//! first tell until it is known that all have been handled, or `{"asks_us": […]}`, one for each ask in turn.

mod kameo;
mod ractor;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

#[derive(Parser)]
struct Arguments {
    #[arg(value_enum)]
    framework: Framework,
    #[arg(value_enum)]
    part: Part,
    /// Messages that are counted; a tenth of them goes before, uncounted.
    #[arg(long, default_value_t = 1_000)]
    messages: u64,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 24)]
    bytes: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Framework {
    Ractor,
    Kameo,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Tell,
    Ask,
    /// Has the actor, until its standard input ends: its first line is where it is.
    #[value(hide = true)]
    Serve,
}

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long anything may take that comes before what is measured.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What one process does with the actor of another.
pub trait Remote {
    /// Tells the actor so many messages and waits until it has handled them: it says how many it has had.
    async fn tell(&self, messages: u64, payload: &[u8]) -> Result<u64, Failure>;
    async fn ask(&self, payload: &[u8]) -> Result<(), Failure>;
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringhold-remote-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Part::Serve = arguments.part {
        return match arguments.framework {
            Framework::Ractor => ractor::serve().await,
            Framework::Kameo => kameo::serve().await,
        };
    }
    let name = match arguments.framework {
        Framework::Ractor => "ractor",
        Framework::Kameo => "kameo",
    };
    let mut server = Command::new(std::env::current_exe()?)
        .args([name, "serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let place = place(&mut server).await?;
    match arguments.framework {
        Framework::Ractor => measure(&ractor::connect(&place).await?, arguments).await?,
        Framework::Kameo => measure(&kameo::connect(&place).await?, arguments).await?,
    }
    server.kill().await?;
    Ok(())
}

async fn place(server: &mut Child) -> Result<String, Failure> {
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut line).await?;
    match line.trim() {
        "" => Err("the process with the actor did not start".into()),
        place => Ok(place.into()),
    }
}

async fn measure(remote: &impl Remote, arguments: &Arguments) -> Result<(), Failure> {
    let payload = vec![7; arguments.bytes];
    let warm = (arguments.messages / 10).max(1);
    match arguments.part {
        Part::Tell => {
            let had = remote.tell(warm, &payload).await?;
            let began = std::time::Instant::now();
            let has = remote.tell(arguments.messages, &payload).await?;
            let elapsed = began.elapsed();
            if has - had != arguments.messages {
                return Err(format!("told {} times, it had {}", arguments.messages, has - had).into());
            }
            println!("{}", json!({ "elapsed_s": elapsed.as_secs_f64() }));
        }
        _ => {
            for _ in 0..warm {
                remote.ask(&payload).await?;
            }
            let mut asks = Vec::with_capacity(arguments.messages as usize);
            for _ in 0..arguments.messages {
                let began = std::time::Instant::now();
                remote.ask(&payload).await?;
                asks.push(began.elapsed().as_secs_f64() * 1e6);
            }
            println!("{}", json!({ "asks_us": asks }));
        }
    }
    Ok(())
}

/// Waits until whoever has started this process is gone.
pub async fn until_orphaned() {
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}
