//! The client of docs/first-actor.md: talks to the meters of a node on this machine.

#[allow(dead_code)]
#[path = "meters.rs"]
mod meters;

use meters::meter;
use ringhold::Key;
use ringhold::client::{Client, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The certificate that the node made for clients on its machine.
    let options = Options::from_data_dir("127.0.0.1:7420", "ringhold-data")?.with::<meter::Actor>();
    let client = Client::connect(options).await?;
    let key = Key::parse("m-17")?;
    client.tell(key, meter::Message::Used { watt_hours: 120 }).await?;
    match client.ask(key, meter::Message::Average).await? {
        meter::Reply::Average { watt_hours } => println!("{watt_hours} Wh a reading"),
        meter::Reply::Total { watt_hours } => println!("{watt_hours} Wh so far"),
    }
    client.close().await?;
    Ok(())
}
