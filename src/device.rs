//! The GPU: asking for an adapter, and giving Burn its device.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{DType, Device, Tensor};
use burn_wgpu::{CubeBackend, CubeTensor};
use cubecl::config::memory::PersistentMemory;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
#[cfg(not(target_family = "wasm"))]
use cubecl::device::Device as CubeDevice;

use crate::arena;
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
    /// Whether the CPU plays the GPU.
    pub software: bool,
    /// To be kept for as long as the device is used.
    pub lease: Lease,
}

/// A share in a device. With the last one, the device is destroyed and all that is on it: Burn keeps
/// devices for ever, and a browser frees the buffers of a device only when it collects garbage.
#[derive(Debug, Clone)]
pub struct Lease(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Owned>);

#[derive(Debug)]
struct Owned {
    burn: Device,
    device: wgpu::Device,
    health: Health,
}

/// A tensor of the device, to ask about it.
fn probe(device: &Device) -> Option<CubeTensor> {
    Tensor::<1>::empty([1], (device, DType::F32)).try_into_primitive::<CubeBackend>().ok()
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.health.release();
        // What is written down about the buffers goes too.
        if let Some(probe) = probe(&self.burn) {
            arena::release(&probe);
        }
        self.burn.memory_cleanup();
        self.device.destroy();
    }
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
    /// Nobody uses the device any more, and what becomes of it is no failure.
    released: bool,
    waiting: Vec<Waker>,
}

impl Health {
    /// Reports the device's end. Only the first report counts.
    pub fn fail(&self, failure: Failure) {
        let Ok(mut state) = self.0.lock() else { return };
        if !state.released {
            state.failure.get_or_insert(failure);
        }
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Nobody uses the device any more: it is about to be destroyed.
    fn release(&self) {
        let Ok(mut state) = self.0.lock() else { return };
        state.released = true;
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
            // Burn's own handler panics, which in a browser leaves an edit with stale data.
            error => on_fault(&error),
        }));
    }

    /// Waits until the device ends, by a failure or because nobody uses it any more.
    pub async fn ended(&self) -> Option<Failure> {
        poll_fn(|context| {
            let Ok(mut state) = self.0.lock() else { return Poll::Pending };
            if state.failure.is_some() || state.released {
                return Poll::Ready(state.failure.clone());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The first error that a device reported since the last was taken: a shader that does not compile,
/// a binding that is too large, memory that is not there. What was computed meanwhile may be stale.
static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// Takes the first error that a device reported by itself, if there was any. A read of the device's
/// memory completes after the errors of everything before it.
pub fn take_fault() -> Option<String> {
    FAULT.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn on_fault(error: &wgpu::Error) {
    log::error!("the GPU device: {error}");
    let mut fault = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
    fault.get_or_insert_with(|| error.to_string());
}

/// Tasks that go into one submission.
const TASKS_MAX: usize = 64;

/// Features that are used where the adapter has them; the last three are native only, and Burn's own
/// kernels take them for granted on an adapter that has them.
const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::SHADER_F64)
    .union(wgpu::Features::SHADER_FLOAT32_ATOMIC);

/// Has Burn keep buffers by their exact sizes. By default it has buckets of sizes that grow by two thirds, gives a
/// tensor the first free buffer that is not too small, whatever its size, and so takes new ones for large tensors
/// while small ones sit in the old. The sizes of an edit are few, and come again in every step.
///
/// And has it keep one stream a device in a browser, where there is one thread: it makes room for 128 otherwise, half
/// a megabyte that is never given back.
fn configure() {
    let mut config = CubeClRuntimeConfig::default();
    config.memory.persistent_memory = PersistentMemory::Enforced;
    if cfg!(target_family = "wasm") {
        config.streaming.max_streams = 1;
    }
    // Only the first word on it counts.
    CubeClRuntimeConfig::try_set(config);
}

impl Gpu {
    /// Asks for a high-performance adapter and makes a device with the adapter's own limits.
    ///
    /// A browser whose GPU process is still starting says that there is none: ask again for a few
    /// seconds before believing it.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when there is no adapter, or it refuses a device.
    pub async fn request() -> Result<Self> {
        configure();
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
        #[cfg(not(target_family = "wasm"))]
        let features = match multiplies_matrices(&adapter) {
            true => features | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
            false => features,
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                required_features: features,
                experimental_features: experiments(),
                required_limits: adapter.limits(),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let info = adapter.get_info();
        let software = info.device_type == wgpu::DeviceType::Cpu
            || is_software(&info.name)
            || is_software(&info.driver);
        let name = [info.name, info.driver].into_iter().find(|s| !s.is_empty()).unwrap_or_default();
        let raw = device.clone();
        let setup = WgpuSetup { backend: info.backend, instance, adapter, device, queue };
        let device = Device::wgpu_options()
            .tasks_max(TASKS_MAX)
            .setup(setup)
            .init()
            .map_err(|e| unavailable(e.to_string()))?;
        let health = Health::default();
        // In a browser every callback is called. Elsewhere this one would take the place of Burn's.
        if cfg!(target_family = "wasm") {
            health.watch(&raw);
        } else {
            raw.on_uncaptured_error(Arc::new(|error| on_fault(&error)));
        }
        let lease =
            Lease(Arc::new(Owned { burn: device.clone(), device: raw, health: health.clone() }));
        #[cfg(not(target_family = "wasm"))]
        if features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            let mut devices = WITH_MATRICES.lock().unwrap_or_else(PoisonError::into_inner);
            devices.extend(probe(&device).map(|probe| probe.device));
        }
        let f16 = features.contains(wgpu::Features::SHADER_F16);
        Ok(Self { device, name, f16, health, software, lease })
    }

    /// The type of activations that suits the adapter.
    pub fn preferred_dtype(&self) -> DType {
        if self.f16 { DType::F16 } else { DType::F32 }
    }
}

/// Devices whose subgroups of 32 multiply matrices of 16 x 16 halves.
#[cfg(not(target_family = "wasm"))]
static WITH_MATRICES: Mutex<Vec<CubeDevice>> = Mutex::new(Vec::new());

/// Whether the device's subgroups, of 32, multiply matrices of 16 x 16 halves and sum in `f32`.
#[cfg(not(target_family = "wasm"))]
pub fn has_cooperative_matrices(device: &CubeDevice) -> bool {
    WITH_MATRICES.lock().unwrap_or_else(PoisonError::into_inner).contains(device)
}

/// The same of an adapter.
#[cfg(not(target_family = "wasm"))]
fn multiplies_matrices(adapter: &wgpu::Adapter) -> bool {
    use wgpu::CooperativeScalarType::{F16, F32};
    let info = adapter.get_info();
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_F16;
    let kinds = adapter.cooperative_matrix_properties();
    adapter.features().contains(needed)
        && [info.subgroup_min_size, info.subgroup_max_size] == [32; 2]
        && kinds.iter().any(|kind| {
            [kind.m_size, kind.n_size, kind.k_size] == [16; 3]
                && (kind.ab_type, kind.cr_type) == (F16, F32)
        })
}

/// Leave to use what wgpu calls experimental: cooperative matrices, which are not in WebGPU yet.
fn experiments() -> wgpu::ExperimentalFeatures {
    if cfg!(target_family = "wasm") {
        return wgpu::ExperimentalFeatures::disabled();
    }
    #[expect(
        unsafe_code,
        reason = "wgpu says that its experiments may have holes; our shaders are fixed"
    )]
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}

/// Whether an adapter's name is one of those that the CPU plays.
pub fn is_software(name: &str) -> bool {
    let name = name.to_lowercase();
    ["swiftshader", "llvmpipe", "lavapipe", "basic render"].iter().any(|cpu| name.contains(cpu))
}
