//! The GPU: asking for an adapter, and giving Burn its device.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{DType, Device};

use crate::error::{Error, Result};

/// A GPU that Burn computes on.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The device.
    pub device: Device,
    /// The adapter's name, as far as the platform tells.
    pub name: String,
    /// Whether shaders compute in half precision (`shader-f16`).
    pub f16: bool,
    /// Whether the device still works.
    pub health: Health,
}

/// What ends a device: told by the platform at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The driver crashed, or the GPU was taken away.
    Lost(String),
    /// There was no memory for a buffer, and what was computed since is worth nothing.
    OutOfMemory,
}

/// Whether a device still works. Clones are about the same device.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    waiting: Vec<Waker>,
}

impl Health {
    /// Reports the device's end. Only the first report counts.
    pub fn fail(&self, failure: Failure) {
        let Ok(mut state) = self.0.lock() else { return };
        state.failure.get_or_insert(failure);
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// What ended the device, if anything has.
    pub fn failure(&self) -> Option<Failure> {
        self.0.lock().ok()?.failure.clone()
    }

    fn watch(&self, device: &wgpu::Device) {
        let health = self.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}") } else { message };
            health.fail(Failure::Lost(message));
        });
        let health = self.clone();
        device.on_uncaptured_error(Arc::new(move |error| match error {
            wgpu::Error::OutOfMemory { .. } => health.fail(Failure::OutOfMemory),
            // What comes after the end is its consequence.
            _ if health.failure().is_some() => {}
            error => panic!("wgpu error: {error}"),
        }));
    }

    /// Waits until the device ends.
    pub async fn ended(&self) -> Failure {
        poll_fn(|context| {
            if let Some(failure) = self.failure() {
                return Poll::Ready(failure);
            }
            if let Ok(mut state) = self.0.lock() {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Tasks that go into one submission.
const TASKS_MAX: usize = 64;

/// Features that are used where the adapter has them.
const WANTED: wgpu::Features = wgpu::Features::SHADER_F16.union(wgpu::Features::SUBGROUP);

impl Gpu {
    /// Asks for a high-performance adapter and makes a device with the adapter's own limits.
    ///
    /// A browser whose GPU process is still starting says that there is none: ask again for a few
    /// seconds before believing it.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when there is no adapter, or it refuses a device.
    pub async fn request() -> Result<Self> {
        let backends = if cfg!(target_family = "wasm") {
            wgpu::Backends::BROWSER_WEBGPU
        } else {
            wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12
        };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let unavailable = |message: String| Error::NoAdapter { message };
        let adapter = instance
            .request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                ..Default::default()
            })
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let features = adapter.features() & WANTED;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                required_features: features,
                required_limits: adapter.limits(),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let info = adapter.get_info();
        let name = [info.name, info.driver].into_iter().find(|s| !s.is_empty()).unwrap_or_default();
        let watched = device.clone();
        let setup = WgpuSetup { backend: info.backend, instance, adapter, device, queue };
        let device = Device::wgpu_options()
            .tasks_max(TASKS_MAX)
            .setup(setup)
            .init()
            .map_err(|e| unavailable(e.to_string()))?;
        let health = Health::default();
        // In a browser every callback is called. Elsewhere this one would take the place of Burn's.
        if cfg!(target_family = "wasm") {
            health.watch(&watched);
        }
        Ok(Self { device, name, f16: features.contains(wgpu::Features::SHADER_F16), health })
    }

    /// The type of activations that suits the adapter.
    pub fn preferred_dtype(&self) -> DType {
        if self.f16 { DType::F16 } else { DType::F32 }
    }
}
