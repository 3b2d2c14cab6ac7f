//! Devices that a ring kernel runs, in the process of the test: emulated ones, without a device host of their own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringhold::Registry;
use ringhold::config::{self, DeviceKind};
use ringhold::device::host::{DeviceBells, DeviceHost, Devices, NotifyBell, RealDevices};
use ringhold::device::supervisor::Over;
use ringhold_cluster::network::BoxFuture;
use ringhold_kernels::bell::Bell;
use ringhold_kernels::emulated::{Host, Program};
use ringhold_kernels::ring_kernel::{self, Plan};
use ringhold_kernels::segment::{STOP_AT_ONCE, Segment};

/// The real ones, but for the emulated.
#[derive(Default)]
pub struct RingDevices(RealDevices);

impl Devices for RingDevices {
    fn host(
        &self,
        config: &config::Device,
        sharers: u32,
        workers: usize,
        registry: &Arc<Registry>,
    ) -> io::Result<Box<dyn DeviceHost>> {
        if config.kind != DeviceKind::Emulated {
            return self.0.host(config, sharers, workers, registry);
        }
        let bell: Arc<dyn Bell> = Arc::<NotifyBell>::default();
        let (workers, registry) = (Arc::new(vec![bell; workers]), registry.clone());
        Ok(Box::new(RingHost { registry, workers, node: Arc::default(), running: None }))
    }
}

struct RingHost {
    registry: Arc<Registry>,
    /// Nobody rings for a ring kernel: it looks.
    workers: Arc<Vec<Arc<dyn Bell>>>,
    node: Arc<NotifyBell>,
    running: Option<(Host, Arc<Segment>)>,
}

/// Memory and threads of a block.
const BYTES: u64 = 64 << 20;
const THREADS: u32 = 32;

impl DeviceHost for RingHost {
    fn bells(&self) -> DeviceBells {
        DeviceBells { workers: self.workers.clone(), node: self.node.clone() }
    }

    fn start(&mut self, segment: &Arc<Segment>) -> io::Result<Option<u32>> {
        let plan = Plan::divide(BYTES, THREADS, &self.registry, segment.shape());
        let source = ring_kernel::source(&self.registry, segment.shape(), &plan).map_err(io::Error::other)?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = Program::compile(&source, &[], folder).map_err(io::Error::other)?;
        let host = Arc::new(program).start(segment, self.node.clone()).map_err(io::Error::other)?;
        self.running = Some((host, segment.clone()));
        Ok(None)
    }

    fn over(&mut self) -> BoxFuture<'_, Over> {
        Box::pin(async {
            let Some((host, _)) = &self.running else { return std::future::pending().await };
            while !host.is_over() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (host, _) = self.running.take().expect("it was just seen");
            match host.join() {
                Ok(()) => "ended in order".into(),
                Err(e) => e.to_string().into(),
            }
        })
    }

    fn kill(&mut self) {
        if let Some((_, segment)) = &self.running {
            segment.node().stop.store(STOP_AT_ONCE, std::sync::atomic::Ordering::Release);
        }
    }

    fn switches(&self) -> bool {
        false
    }
}
