#[ringhold::actor]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    #[derive(Clone)]
    pub struct Point {
        #[serde(skip)]
        pub x: u32,
    }

    #[inline]
    fn fast() {}

    #[cfg(test)]
    const LIMIT: u32 = 1;

    #[repr(u8)]
    pub enum Kind {
        One,
    }

    #[test]
    fn works() {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        #[rustfmt::skip]
        let x = 1u32;
        #[allow(unused)]
        let y = 1u32;
    }
}

fn main() {}
