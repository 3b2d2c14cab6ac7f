//! Messages a second with checkpoints off, every second and every 10 ms.
//!
//! 1,000 tokens go round a ring of 10,000 cells in one worker, so that everything changes all the time and nothing comes from
//! outside. Each node runs alone, one after the other, several rounds; figures are medians. On a machine that others use too, a
//! second of the clock is not a second of a core: the rate by the CPU time of the device's process is printed beside it. It
//! has what the device does for checkpoints, and not what the node does on another core.

use std::fs;
use std::time::{Duration, Instant};

use ringhold::Key;

use crate::actors::cell;
use crate::machine::Here;
use crate::{Failure, percentile};

const CELLS: u64 = 10_000;
const TOKENS: u64 = 1_000;

pub async fn run(quick: bool) -> Result<(), Failure> {
    let (rounds, window) = if quick { (1, Duration::from_millis(300)) } else { (9, Duration::from_secs(2)) };
    println!(
        "\nthroughput: {TOKENS} tokens in a ring of {CELLS} cells, {rounds} rounds of {window:?} each; budget: 1 s at least 97 % \
         of off"
    );
    let intervals = [None, Some(Duration::from_secs(1)), Some(Duration::from_millis(10))];
    let mut rounds_of = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        for (interval, rounds) in intervals.iter().zip(&mut rounds_of) {
            rounds.push(round(*interval, window).await?);
        }
    }
    let sorted = |rounds: &[Round], of: fn(&Round) -> f64| {
        let mut rates: Vec<f64> = rounds.iter().map(of).collect();
        rates.sort_by(f64::total_cmp);
        rates
    };
    let median = |rounds: &[Round], of| percentile(&sorted(rounds, of), 0.5);
    for (interval, rounds) in intervals.iter().zip(&rounds_of) {
        let name = interval.map_or("off".into(), |interval| format!("every {interval:?}"));
        let made: u64 = rounds.iter().map(|round| round.checkpoints).sum();
        print!("{name:>12}, {made:>4} checkpoints:");
        for (of, by) in
            [((|round| round.per_s) as fn(&Round) -> f64, "the clock"), (|round| round.per_cpu_s, "CPU time")]
        {
            let (rates, off) = (sorted(rounds, of), median(&rounds_of[0], of));
            let middle = percentile(&rates, 0.5);
            print!(
                " {:>6.1} M/s ({:.1} to {:.1}), {:>5.1} % of off, by {by};",
                middle / 1e6,
                rates[0] / 1e6,
                rates[rates.len() - 1] / 1e6,
                middle / off * 100.0
            );
        }
        println!();
    }
    Ok(())
}

/// Messages a second, and checkpoints made meanwhile.
struct Round {
    per_s: f64,
    per_cpu_s: f64,
    checkpoints: u64,
}

async fn round(interval: Option<Duration>, window: Duration) -> Result<Round, Failure> {
    let here = Here::start(|config| {
        config.checkpoints.enabled = interval.is_some();
        config.checkpoints.interval = interval.unwrap_or(Duration::from_secs(1));
    })
    .await?;
    for token in 0..TOKENS {
        let pass = cell::Message::Pass { left: u64::MAX, cells: CELLS };
        here.client.tell(Key(token * (CELLS / TOKENS)), pass).await?;
    }
    here.client.flush().await?;
    // Everything has been touched and is warm.
    tokio::time::sleep(window / 4).await;
    let look = || {
        let status = here.device().status();
        let cpu = cpu(status.pid.ok_or("the device has no process")?)?;
        let checkpoints = status.checkpoints.map_or(0, |checkpoints| checkpoints.count);
        Ok::<_, Failure>((Instant::now(), status.handled, cpu, checkpoints))
    };
    let before = look()?;
    tokio::time::sleep(window).await;
    let after = look()?;
    let handled = (after.1 - before.1) as f64;
    // It would never come to rest: its host is killed with it.
    drop(here);
    Ok(Round {
        per_s: handled / (after.0 - before.0).as_secs_f64(),
        per_cpu_s: handled / (after.2 - before.2).as_secs_f64(),
        checkpoints: after.3 - before.3,
    })
}

/// User and system time of a process so far, from `/proc/PID/stat`, which counts in hundredths of a second.
fn cpu(pid: u32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |number: usize| fields.get(number).and_then(|text| text.parse::<u64>().ok()).ok_or("a strange stat");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
