//! Control values: bincode behind a little-endian u32 length.

use quinn::{RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RESPONSE_BYTES_MAX;

/// Why a control value could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("a control value of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("a control value could not be decoded: {0}")]
    Decode(String),
    #[error("a control value could not be encoded: {0}")]
    Encode(String),
    #[error("the stream ended inside a control value")]
    Truncated,
    #[error("the stream was given up by the peer")]
    Reset,
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RESPONSE_BYTES_MAX>()
}

/// The bytes of a control value, its length first.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ControlError> {
    let mut bytes = vec![0; 4];
    let len = bincode::serde::encode_into_std_write(value, &mut bytes, bincode_config())
        .map_err(|e| ControlError::Encode(e.to_string()))?;
    if len > RESPONSE_BYTES_MAX {
        return Err(ControlError::TooLarge { bytes: len, max: RESPONSE_BYTES_MAX });
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// The value these bytes are, without their length, and nothing else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, bincode_config()).map_err(|e| ControlError::Decode(e.to_string()))?;
    if used != bytes.len() {
        return Err(ControlError::Decode(format!("{} bytes are left over", bytes.len() - used)));
    }
    Ok(value)
}

/// Sends one control value.
pub async fn send<T: Serialize>(stream: &mut SendStream, value: &T) -> Result<(), ControlError> {
    stream.write_all(&encode(value)?).await.map_err(|e| match e {
        quinn::WriteError::ConnectionLost(e) => ControlError::Connection(e),
        _ => ControlError::Reset,
    })
}

/// The value with which these bytes begin.
pub(crate) fn decode_beginning<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    let decoded = bincode::serde::decode_from_slice(bytes, bincode_config());
    decoded.map(|(value, _)| value).map_err(|e| ControlError::Decode(e.to_string()))
}

/// Reads one control value of at most `max` bytes. The caller sets the deadline.
pub async fn receive<T: DeserializeOwned>(stream: &mut RecvStream, max: usize) -> Result<T, ControlError> {
    decode(&receive_bytes(stream, max).await?)
}

/// Reads the bytes of one control value, without their length.
pub(crate) async fn receive_bytes(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, ControlError> {
    let mut len = [0; 4];
    read_exact(stream, &mut len).await?;
    let len = u32::from_le_bytes(len) as usize;
    if len > max {
        return Err(ControlError::TooLarge { bytes: len, max });
    }
    // Grown as bytes come: a length alone commits no memory.
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + READ_STEP_BYTES), 0);
        read_exact(stream, &mut bytes[start..]).await?;
    }
    Ok(bytes)
}

const READ_STEP_BYTES: usize = 64 << 10;

/// Fills `bytes` from a stream.
pub async fn read_exact(stream: &mut RecvStream, bytes: &mut [u8]) -> Result<(), ControlError> {
    stream.read_exact(bytes).await.map_err(|e| match e {
        quinn::ReadExactError::FinishedEarly(_) => ControlError::Truncated,
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(e)) => ControlError::Connection(e),
        quinn::ReadExactError::ReadError(_) => ControlError::Reset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Hello, Lane, TypeLayout};

    #[test]
    fn control_values_come_back_whole_and_refuse_leftovers() {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            client: "test".into(),
            cluster: None,
            types: vec![TypeLayout { name: "bank.account".into(), layout_hash: 7 }],
            admin: false,
            lane: Lane {
                client: [3; 16],
                node: 2,
                first: 9,
                again: 12,
                waiting: Lane::distances([2, 5, 8]),
                before: None,
                table: 4,
            },
        };
        let bytes = encode(&hello).unwrap();
        assert_eq!(decode::<Hello>(&bytes[4..]).unwrap(), hello);
        assert!(hello.lane.waiting().eq([2, 5, 8]));
        let mut longer = bytes[4..].to_vec();
        longer.push(0);
        assert!(matches!(decode::<Hello>(&longer), Err(ControlError::Decode(_))));
        assert!(matches!(decode::<Hello>(&bytes[4..bytes.len() - 1]), Err(ControlError::Decode(_))));
    }

    #[test]
    fn a_length_that_lies_allocates_nothing_much() {
        // A vector that claims 2^60 elements: bincode's limit stops it before memory is asked for.
        let mut bytes = vec![1, 1, 0, 0];
        bytes.push(253);
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(decode::<Hello>(&bytes).is_err());
    }
}
