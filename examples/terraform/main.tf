resource "helm_release" "csisecretstorekvprovider" {
  name             = "csisecretstorekvprovider"
  namespace        = "csisecretstorekvprovider"
  create_namespace = true
  chart            = var.chart
  atomic           = true

  dynamic "set" {
    for_each = var.csi_driver_parameters
    content {
      name  = set.value.ParamName
      value = set.value.ParamValue
    }
  }
}
