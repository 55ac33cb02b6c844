// The same job with the SDK v3.

import {
  BatchDisassociateProjectAssetsCommand,
  IoTSiteWiseClient,
} from "@aws-sdk/client-iotsitewise";

const ASSETS_PER_CALL = 100;

// The SDK puts `monitor.` before the host, which a loopback address cannot have.
const sitewise = new IoTSiteWiseClient({ disableHostPrefix: true });

async function disassociate(record) {
  const { projectId, assetIds } = JSON.parse(record.body);
  for (let start = 0; start < assetIds.length; start += ASSETS_PER_CALL) {
    const answer = await sitewise.send(
      new BatchDisassociateProjectAssetsCommand({
        projectId,
        assetIds: assetIds.slice(start, start + ASSETS_PER_CALL),
      }),
    );
    if (answer.errors?.length) {
      throw new Error(`${answer.errors.length} assets failed`);
    }
  }
}

export async function handler(event) {
  const batchItemFailures = [];
  for (const record of event.Records) {
    try {
      await disassociate(record);
    } catch (error) {
      console.error(error);
      batchItemFailures.push({ itemIdentifier: record.messageId });
    }
  }
  return { batchItemFailures };
}
