// Includes the stack of template.yaml in a CDK app: the template stays the only
// definition of queues, role, alarms and dashboard.
//
// Run `sam build` first: the app uploads the bootstrap that it builds.
const path = require("node:path");
const { App, Stack } = require("aws-cdk-lib");
const { CfnInclude } = require("aws-cdk-lib/cloudformation-include");
const { Asset } = require("aws-cdk-lib/aws-s3-assets");

const root = path.resolve(__dirname, "../..");
const built = process.env.BUILT ?? path.join(root, ".aws-sam/build");

const app = new App();
const stack = new Stack(app, "SitewiseDisassociator");
const bootstrap = new Asset(stack, "Bootstrap", { path: path.join(built, "Function") });
const included = new CfnInclude(stack, "Template", {
  templateFile: path.join(root, "template.yaml"),
  parameters: {
    // The architecture of the bootstrap.
    Architecture: "arm64",
    EventSource: "com.example.maintenance",
  },
});
included.getResource("Function").codeUri = {
  bucket: bootstrap.s3BucketName,
  key: bootstrap.s3ObjectKey,
};

app.synth();
