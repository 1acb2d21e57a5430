//! The GPU: asking for an adapter, and giving Burn its device.

use std::sync::Arc;

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
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What Burn has written down about the buffers goes too.
        self.burn.memory_cleanup();
        self.device.destroy();
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
        let raw = device.clone();
        let setup = WgpuSetup { backend: info.backend, instance, adapter, device, queue };
        let device = Device::wgpu_options()
            .tasks_max(TASKS_MAX)
            .setup(setup)
            .init()
            .map_err(|e| unavailable(e.to_string()))?;
        let lease = Lease(Arc::new(Owned { burn: device.clone(), device: raw }));
        Ok(Self { device, name, f16: features.contains(wgpu::Features::SHADER_F16), lease })
    }

    /// The type of activations that suits the adapter.
    pub fn preferred_dtype(&self) -> DType {
        if self.f16 { DType::F16 } else { DType::F32 }
    }
}
