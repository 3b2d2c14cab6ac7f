//! Messages a second with checkpoints off, every second and every 10 ms.
//!
//! 1,000 tokens go round a ring of 10,000 cells in one worker, so that everything changes all the time and nothing comes from
//! outside. Each node runs alone, one after the other, several rounds; the figure is the median.

use std::time::{Duration, Instant};

use ringhold::Key;

use crate::actors::cell;
use crate::machine::Here;
use crate::{Failure, percentile};

const CELLS: u64 = 10_000;
const TOKENS: u64 = 1_000;

pub async fn run(quick: bool) -> Result<(), Failure> {
    let (rounds, window) = if quick { (1, Duration::from_millis(300)) } else { (5, Duration::from_secs(4)) };
    println!(
        "\nthroughput: {TOKENS} tokens in a ring of {CELLS} cells, {rounds} rounds of {window:?} each; budget: 1 s at least 97 % of off"
    );
    let intervals = [None, Some(Duration::from_secs(1)), Some(Duration::from_millis(10))];
    let mut rates = [const { Vec::new() }; 3];
    let mut made = [0; 3];
    for _ in 0..rounds {
        for ((interval, rates), made) in intervals.iter().zip(&mut rates).zip(&mut made) {
            let (rate, checkpoints) = round(*interval, window).await?;
            rates.push(rate);
            *made += checkpoints;
        }
    }
    for rates in &mut rates {
        rates.sort_by(f64::total_cmp);
    }
    let off = percentile(&rates[0], 0.5);
    for ((interval, rates), made) in intervals.iter().zip(&rates).zip(made) {
        let name = interval.map_or("off".into(), |interval| format!("every {interval:?}"));
        let (median, lowest, highest) = (percentile(rates, 0.5), rates[0], rates[rates.len() - 1]);
        println!(
            "{name:>12}: {:>6.1} M/s ({:.1} to {:.1}), {:.1} % of off, {made} checkpoints",
            median / 1e6,
            lowest / 1e6,
            highest / 1e6,
            median / off * 100.0
        );
    }
    Ok(())
}

/// Messages a second, and checkpoints made meanwhile.
async fn round(interval: Option<Duration>, window: Duration) -> Result<(f64, u64), Failure> {
    let here = Here::start(|config| {
        config.checkpoints.enabled = interval.is_some();
        config.checkpoints.interval = interval.unwrap_or(Duration::from_secs(1));
        // The tokens never stop.
        config.node.drain_timeout = Duration::from_millis(1);
    })
    .await?;
    for token in 0..TOKENS {
        let pass = cell::Message::Pass { left: u64::MAX, cells: CELLS };
        here.client.tell(Key(token * (CELLS / TOKENS)), pass).await?;
    }
    here.client.flush().await?;
    // Everything has been touched and warm.
    tokio::time::sleep(window / 4).await;
    let look = || {
        let status = here.device().status();
        (Instant::now(), status.handled, status.checkpoints.map_or(0, |checkpoints| checkpoints.count))
    };
    let (began, before, made_before) = look();
    tokio::time::sleep(window).await;
    let (ended, after, made) = look();
    let rate = (after - before) as f64 / (ended - began).as_secs_f64();
    // It would not come to rest: killed with its node.
    drop(here);
    Ok((rate, made - made_before))
}
