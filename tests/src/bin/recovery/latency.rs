//! An ask of a `committed` type: its answer waits for a checkpoint, which waits for the disk. Beside an fsync of 4 KiB written to
//! a file in the same folder, in turns.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use ringhold::Key;

use crate::actors::cell;
use crate::machine::{Here, touch};
use crate::{Failure, percentile};

pub async fn run(quick: bool) -> Result<(), Failure> {
    const CELLS: u64 = 1_000;
    let times = if quick { 20 } else { 500 };
    println!("\nlatency: one ask at a time of a committed type, {times} times, beside an fsync of 4 KiB in turns");
    let (mut figures, mut alone) = (Vec::new(), Vec::new());
    for committed in [false, true] {
        let here = Here::start(|config| {
            if committed {
                config.actors.committed = vec!["cell".into()];
            }
        })
        .await?;
        touch(&here.client, CELLS, 1).await?;
        let mut file = File::create(here.folder.path().join("fsync"))?;
        let (mut asks, mut fsyncs) = (Vec::new(), Vec::new());
        for time in 0..times {
            let began = Instant::now();
            here.client.ask(Key(time % CELLS), cell::Message::Read).await?;
            asks.push(began.elapsed());
            // Not while the checkpoint of the ask before may still be under way.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let began = Instant::now();
            file.write_all(&[time as u8; 4096])?;
            file.sync_data()?;
            fsyncs.push(began.elapsed());
        }
        asks.sort_unstable();
        fsyncs.sort_unstable();
        let (p50, p99) = (percentile(&asks, 0.5), percentile(&asks, 0.99));
        let (fsync50, fsync99) = (percentile(&fsyncs, 0.5), percentile(&fsyncs, 0.99));
        let name = if committed { "committed" } else { "fast" };
        println!("{name:>12}: ask p50 {p50:.1?}, p99 {p99:.1?}; fsync p50 {fsync50:.1?}, p99 {fsync99:.1?}");
        figures.push(p50);
        alone.push(fsync50);
        here.end().await?;
    }
    println!(
        "a committed ask takes {:.1} x an fsync (p50), {:.1} x what it takes more than a fast one",
        figures[1].as_secs_f64() / alone[1].as_secs_f64(),
        figures[1].saturating_sub(figures[0]).as_secs_f64() / alone[1].as_secs_f64()
    );
    Ok(())
}
