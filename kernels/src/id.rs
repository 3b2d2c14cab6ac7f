//! Names of things: keys, actor types, actors.

use std::fmt;

/// Which actor of its type: 64 bits, chosen by the user.
///
/// Whole numbers are themselves. Short names (up to eight bytes of text) are packed without loss by
/// [`Key::name`], so that `JFK` or `N14228` are keys and print as themselves. Longer text can be hashed with
/// [`Key::hashed`]; two texts share a key with probability 2⁻⁶⁴ a pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct Key(pub u64);

impl Key {
    /// Packs up to eight bytes of text, first byte lowest. `None` if it is empty, longer, or holds a NUL.
    pub const fn name(text: &str) -> Option<Key> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > 8 {
            return None;
        }
        let mut packed = 0u64;
        let mut i = 0;
        while i < bytes.len() {
            if bytes[i] == 0 {
                return None;
            }
            packed |= (bytes[i] as u64) << (8 * i);
            i += 1;
        }
        Some(Key(packed))
    }

    /// FNV-1a of the text, 64 bits.
    pub const fn hashed(text: &str) -> Key {
        Key(fnv1a(text.as_bytes()))
    }

    /// The text this key packs, if it is printable ASCII of at least two characters.
    pub fn as_name(self) -> Option<String> {
        let bytes = self.0.to_le_bytes();
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(8);
        let (text, rest) = bytes.split_at(len);
        let printable = text.iter().all(u8::is_ascii_graphic) && rest.iter().all(|b| *b == 0);
        (len >= 2 && printable).then(|| text.iter().map(|b| *b as char).collect())
    }

    /// Reads a key as a person writes it: a decimal number, `name:TEXT` or plain text of at most eight
    /// bytes (a name), `hash:TEXT` (hashed).
    pub fn parse(text: &str) -> Result<Key, String> {
        if let Some(name) = text.strip_prefix("name:") {
            return Key::name(name).ok_or_else(|| format!("`{name}` is no name: a name has 1 to 8 bytes"));
        }
        if let Some(long) = text.strip_prefix("hash:") {
            return Ok(Key::hashed(long));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .map(Key)
                .map_err(|_| format!("`{text}` does not fit 64 bits: the largest key is {}", u64::MAX));
        }
        Key::name(text).ok_or_else(|| {
            format!("`{text}` is {} bytes: a name has 1 to 8; write `hash:{text}` to use its hash", text.len())
        })
    }

    /// Spreads keys over shards and hash tables: a bijection whose high and low bits are both well mixed.
    #[inline(always)]
    pub const fn mix(self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

impl From<u64> for Key {
    fn from(value: u64) -> Key {
        Key(value)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_name() {
            Some(name) => f.pad(&name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which actor type: a hash of its registered name, so that it means the same on every node.
///
/// Zero is no actor type: it marks a client waiting for a reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[repr(transparent)]
pub struct TypeId(pub u32);

impl TypeId {
    /// No actor: the sender is a client, and the key is its ticket.
    pub const CLIENT: TypeId = TypeId(0);

    /// The id of the type registered as `name`. The registry refuses two names with one id.
    pub const fn of(name: &str) -> TypeId {
        let hash = fnv1a(name.as_bytes());
        let folded = (hash ^ (hash >> 32)) as u32;
        TypeId(if folded == 0 { 1 } else { folded })
    }
}

impl fmt::Debug for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One actor: its type and its key. Plain data: actors may keep ids in their state and send them on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct ActorId {
    pub key: Key,
    pub type_id: TypeId,
}

const _: () = assert!(size_of::<ActorId>() == 16 && align_of::<ActorId>() == 8);

impl ActorId {
    #[inline(always)]
    pub const fn new(type_id: TypeId, key: Key) -> ActorId {
        ActorId { key, type_id }
    }

    pub const fn is_client(self) -> bool {
        self.type_id.0 == 0
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.type_id, self.key)
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_survives_packing() {
        for name in ["JFK", "N14228", "abcdefgh"] {
            assert_eq!(Key::name(name).unwrap().to_string(), name);
            assert_eq!(Key::parse(name).unwrap(), Key::name(name).unwrap());
        }
        assert_eq!(Key::name("ninebytes"), None);
        assert_eq!(Key::name(""), None);
        assert_eq!(Key(42).to_string(), "42");
        assert_eq!(Key::parse("42").unwrap(), Key(42));
        assert!(Key::parse("alice@example.com").unwrap_err().contains("hash:"));
    }
}
