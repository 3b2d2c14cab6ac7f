//! A GPU in use: its memory, code and streams, each given back when it is dropped.
//!
//! One thread has all of it. While a kernel runs that does not end by itself, only [`Stream::is_done`] may be called:
//! freeing memory waits for the kernel.

use std::ffi::{CString, c_int, c_void};
use std::ptr::NonNull;
use std::rc::Rc;

use cudarc::driver::sys::{self, CUdevice, CUfunction, CUmodule, CUresult, CUstream, CUstream_flags};

use super::driver::{Absent, Driver, Error, SUCCESS, call};
use super::library::symbols;

symbols! {
    /// What is asked of a driver to run something.
    struct Calls {
        cuDevicePrimaryCtxRetain,
        cuDevicePrimaryCtxRelease_v2,
        cuCtxSetCurrent,
        cuMemGetInfo_v2,
        cuMemAlloc_v2,
        cuMemFree_v2,
        cuMemsetD8Async,
        cuMemcpyDtoH_v2,
        cuMemHostRegister_v2,
        cuMemHostGetDevicePointer_v2,
        cuMemHostUnregister,
        cuModuleLoadData,
        cuModuleUnload,
        cuModuleGetFunction,
        cuModuleGetGlobal_v2,
        cuOccupancyMaxActiveBlocksPerMultiprocessor,
        cuStreamCreate,
        cuStreamDestroy_v2,
        cuStreamQuery,
        cuStreamSynchronize,
        cuLaunchCooperativeKernel,
    }
}

const NOT_READY: c_int = CUresult::CUDA_ERROR_NOT_READY as c_int;

/// This process's hold of one GPU.
pub struct Context {
    driver: Driver,
    calls: Calls,
    device: CUdevice,
}

/// Device memory.
pub struct Memory {
    context: Rc<Context>,
    /// Where it is, for the GPU.
    pub address: u64,
}

/// Memory of this process that the GPU may reach, and that stays where it is.
pub struct Pinned {
    context: Rc<Context>,
    base: NonNull<u8>,
    /// Where it is, for the GPU.
    pub address: u64,
}

/// Loaded machine code.
pub struct Module {
    context: Rc<Context>,
    handle: CUmodule,
}

/// A kernel in a module.
pub struct Kernel<'a> {
    module: &'a Module,
    handle: CUfunction,
}

/// Work for the GPU, one piece after the other.
pub struct Stream {
    context: Rc<Context>,
    handle: CUstream,
}

/// How large a launch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: u32,
    pub threads: u32,
}

impl Context {
    /// Takes hold of a GPU, for this thread.
    ///
    /// # Errors
    /// [`Absent::Broken`] for a driver that cannot run anything, [`Absent::NotStarted`] for one that refuses.
    pub fn new(driver: Driver, number: u32) -> Result<Rc<Context>, Absent> {
        let calls = driver.more(Calls::load)?;
        let device = driver.device(number as c_int).map_err(Absent::NotStarted)?;
        let mut handle = std::ptr::null_mut();
        call!(driver, calls, cuDevicePrimaryCtxRetain(&mut handle, device)).map_err(Absent::NotStarted)?;
        // From here on it is given back when dropped.
        let context = Context { driver, calls, device };
        call!(context.driver, context.calls, cuCtxSetCurrent(handle)).map_err(Absent::NotStarted)?;
        Ok(Rc::new(context))
    }

    /// Device memory that nobody uses, and all there is, in bytes.
    pub fn memory_bytes(&self) -> Result<(u64, u64), Error> {
        let (mut free, mut total) = (0, 0);
        call!(self.driver, self.calls, cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((free as u64, total as u64))
    }

    /// Device memory, with anything in it.
    pub fn allocate(self: &Rc<Context>, bytes: u64) -> Result<Memory, Error> {
        let mut address = 0;
        call!(self.driver, self.calls, cuMemAlloc_v2(&mut address, bytes as usize))?;
        Ok(Memory { context: self.clone(), address })
    }

    /// Lets the GPU reach memory of this process.
    ///
    /// # Safety
    /// The memory starts at a page, is so long, and stays mapped until what is returned is dropped. Whatever the GPU
    /// does with it is as if another process did it.
    pub unsafe fn pin(self: &Rc<Context>, base: NonNull<u8>, bytes: usize) -> Result<Pinned, Error> {
        let at = base.as_ptr().cast();
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        call!(self.driver, self.calls, cuMemHostRegister_v2(at, bytes, flags))?;
        let mut pinned = Pinned { context: self.clone(), base, address: 0 };
        call!(self.driver, self.calls, cuMemHostGetDevicePointer_v2(&mut pinned.address, at, 0))?;
        Ok(pinned)
    }

    /// Loads machine code.
    ///
    /// # Safety
    /// The code is a whole cubin: the driver believes the lengths in it.
    pub unsafe fn module(self: &Rc<Context>, code: &[u8]) -> Result<Module, Error> {
        let mut handle = std::ptr::null_mut();
        call!(self.driver, self.calls, cuModuleLoadData(&mut handle, code.as_ptr().cast()))?;
        Ok(Module { context: self.clone(), handle })
    }

    pub fn stream(self: &Rc<Context>) -> Result<Stream, Error> {
        let mut handle = std::ptr::null_mut();
        // It never waits for the legacy stream, nor that for it.
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        call!(self.driver, self.calls, cuStreamCreate(&mut handle, flags))?;
        Ok(Stream { context: self.clone(), handle })
    }
}

impl Memory {
    /// Its first 8 bytes, once everything before has ended.
    pub fn first_word(&self) -> Result<u64, Error> {
        let Context { driver, calls, .. } = &*self.context;
        let mut word = 0u64;
        call!(driver, calls, cuMemcpyDtoH_v2((&raw mut word).cast(), self.address, size_of_val(&word)))?;
        Ok(word)
    }
}

impl Module {
    pub fn kernel(&self, name: &str) -> Result<Kernel<'_>, Error> {
        let Context { driver, calls, .. } = &*self.context;
        let mut handle = std::ptr::null_mut();
        call!(driver, calls, cuModuleGetFunction(&mut handle, self.handle, c_string(name).as_ptr()))?;
        Ok(Kernel { module: self, handle })
    }

    /// The value of a constant of 8 bytes.
    ///
    /// # Errors
    /// Also if the constant has another length.
    pub fn constant(&self, name: &str) -> Result<u64, Error> {
        let Context { driver, calls, .. } = &*self.context;
        let (mut address, mut bytes, mut value) = (0, 0, 0u64);
        call!(driver, calls, cuModuleGetGlobal_v2(&mut address, &mut bytes, self.handle, c_string(name).as_ptr()))?;
        if bytes != size_of_val(&value) {
            let said = format!("`{name}` has {bytes} bytes");
            return Err(Error { call: "cuModuleGetGlobal_v2", code: SUCCESS, said });
        }
        call!(driver, calls, cuMemcpyDtoH_v2((&raw mut value).cast(), address, bytes))?;
        Ok(value)
    }
}

impl Kernel<'_> {
    /// How many blocks of so many threads one multiprocessor runs at once.
    pub fn blocks_per_multiprocessor(&self, threads: u32) -> Result<u32, Error> {
        let Context { driver, calls, .. } = &*self.module.context;
        let mut blocks = 0;
        call!(
            driver,
            calls,
            cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, self.handle, threads as c_int, 0)
        )?;
        Ok(blocks.max(0) as u32)
    }
}

impl Stream {
    /// Sets memory to zero.
    ///
    /// # Safety
    /// The memory has so many bytes, and lives until the stream is done.
    pub unsafe fn zero(&self, memory: &Memory, bytes: u64) -> Result<(), Error> {
        let Context { driver, calls, .. } = &*self.context;
        call!(driver, calls, cuMemsetD8Async(memory.address, 0, bytes as usize, self.handle))
    }

    /// Starts a kernel whose blocks wait for each other: all run at once, or it is refused.
    ///
    /// # Safety
    /// The kernel takes these arguments, and what they name lives until the stream is done.
    pub unsafe fn launch_cooperative(&self, kernel: &Kernel, grid: Grid, arguments: &[u64]) -> Result<(), Error> {
        let Context { driver, calls, .. } = &*self.context;
        let mut values = arguments.to_vec();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| (value as *mut u64).cast()).collect();
        let Grid { blocks, threads } = grid;
        let pointers = pointers.as_mut_ptr();
        call!(
            driver,
            calls,
            cuLaunchCooperativeKernel(kernel.handle, blocks, 1, 1, threads, 1, 1, 0, self.handle, pointers)
        )
    }

    /// Whether all that was put into the stream has ended.
    ///
    /// # Errors
    /// If it ended in an error: then nothing works in this process any more.
    pub fn is_done(&self) -> Result<bool, Error> {
        let Context { driver, calls, .. } = &*self.context;
        match call!(driver, calls, cuStreamQuery(self.handle)) {
            Ok(()) => Ok(true),
            Err(e) if e.code == NOT_READY => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Waits until all that was put into the stream has ended. See [`Stream::is_done`] for errors.
    pub fn wait(&self) -> Result<(), Error> {
        let Context { driver, calls, .. } = &*self.context;
        call!(driver, calls, cuStreamSynchronize(self.handle))
    }
}

// What cannot be given back is lost with the process: there is nobody to tell.

impl Drop for Context {
    fn drop(&mut self) {
        let _ = call!(self.driver, self.calls, cuDevicePrimaryCtxRelease_v2(self.device));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = call!(self.context.driver, self.context.calls, cuMemFree_v2(self.address));
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = call!(self.context.driver, self.context.calls, cuMemHostUnregister(self.base.as_ptr().cast()));
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = call!(self.context.driver, self.context.calls, cuModuleUnload(self.handle));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = call!(self.context.driver, self.context.calls, cuStreamDestroy_v2(self.handle));
    }
}

fn c_string(name: &str) -> CString {
    CString::new(name).expect("no name in a program holds a zero")
}
