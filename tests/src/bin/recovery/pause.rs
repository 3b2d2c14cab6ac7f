//! How long a device stands still for a checkpoint, beside a memcpy of the bytes of state that have changed.
//!
//! Cells of 256 bytes, of which some part has been told to change since the last checkpoint. The device has come to rest before
//! each checkpoint, so that what is copied is states alone. The memcpy is from one run of memory to another, in this process,
//! just before each checkpoint: once into memory that is there, and once into memory that the system must give first, as the
//! device's first large copy is.

use std::hint::black_box;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::machine::{Here, PATIENCE, touch};
use crate::{Failure, percentile};

const STATE_BYTES: u64 = 256;

pub async fn run(quick: bool) -> Result<(), Failure> {
    println!("\npause: the device stands still for a checkpoint; ratios are of medians; budget: 3 x a memcpy (warm)");
    println!(
        "{:>9} {:>7} {:>5} {:>12} {:>12} {:>12} {:>12} {:>12} {:>7} {:>7} {:>12} {:>14}",
        "cells",
        "changed",
        "times",
        "pause p50",
        "p99",
        "longest",
        "memcpy warm",
        "memcpy fresh",
        "x warm",
        "x fresh",
        "bytes",
        "until durable"
    );
    let sizes: &[u64] = if quick { &[1_000] } else { &[100_000, 1_000_000] };
    for cells in sizes {
        // Checkpoints are made here and at no other time.
        let here = Here::start(|config| {
            config.checkpoints.interval = Duration::from_secs(3_600);
            // Nor because of what is kept until then.
            config.checkpoints.retained_bytes = 8 << 30;
        })
        .await?;
        touch(&here.client, *cells, 1).await?;
        let router = here.node.router().clone();
        here.device().checkpoint(&*router).await?;
        for (percent, step) in [(1, 100), (10, 10), (100, 1)] {
            let changed = (cells / step * STATE_BYTES) as usize;
            let times = if quick { 3 } else { ((2 << 30) / changed).clamp(5, 100) };
            let from = vec![7u8; changed];
            let mut to = vec![1u8; changed];
            let (mut pauses, mut warm, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
            let (mut bytes, mut took) = (0, Vec::new());
            for _ in 0..times {
                touch(&here.client, *cells, step).await?;
                let began = Instant::now();
                to.copy_from_slice(black_box(&from));
                black_box(&mut to);
                warm.push(began.elapsed());
                fresh.push(copy_to_fresh(&from)?);
                here.device().checkpoint(&*router).await?;
                let made = here.device().status().checkpoints.ok_or("the device makes no checkpoints")?;
                pauses.push(Duration::from_micros(made.pause_us));
                took.push(Duration::from_micros(made.took_us));
                bytes = made.bytes;
            }
            for figures in [&mut pauses, &mut warm, &mut fresh, &mut took] {
                figures.sort_unstable();
            }
            let (pause, warm, fresh) = (percentile(&pauses, 0.5), percentile(&warm, 0.5), percentile(&fresh, 0.5));
            println!(
                "{cells:>9} {percent:>6}% {times:>5} {pause:>12.1?} {:>12.1?} {:>12.1?} {warm:>12.1?} {fresh:>12.1?} {:>7.1} \
                 {:>7.1} {bytes:>12} {:>14.1?}",
                percentile(&pauses, 0.99),
                pauses[pauses.len() - 1],
                pause.as_secs_f64() / warm.as_secs_f64(),
                pause.as_secs_f64() / fresh.as_secs_f64(),
                percentile(&took, 0.5),
            );
        }
        tokio::time::timeout(PATIENCE, here.end()).await??;
    }
    Ok(())
}

/// How long it takes to copy these bytes to memory that the system gives for it.
fn copy_to_fresh(from: &[u8]) -> Result<Duration, Failure> {
    let began = Instant::now();
    // SAFETY: it is a new mapping of as many bytes, which nobody else knows, and it is given back at the end.
    unsafe {
        let to = mmap_anonymous(null_mut(), from.len(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?;
        to.cast::<u8>().copy_from_nonoverlapping(from.as_ptr(), from.len());
        black_box(to);
        let took = began.elapsed();
        munmap(to, from.len())?;
        Ok(took)
    }
}
