variable "chart" {
  description = "The chart: a folder of a checkout, or a package"
  type        = string
  default     = "../../charts/csi-secrets-store-provider-azure"
}

variable "kubeconfig" {
  description = "The file that names the cluster"
  type        = string
  default     = "~/.kube/config"
}

variable "csi_driver_parameters" {
  description = "Values of the chart, by any key"
  type = map(object({
    ParamName  = string
    ParamValue = string
  }))
  default = {
    install = {
      ParamName  = "secrets-store-csi-driver.install"
      ParamValue = "true"
    }
    rotation = {
      ParamName  = "secrets-store-csi-driver.enableSecretRotation"
      ParamValue = "true"
    }
    interval = {
      ParamName  = "secrets-store-csi-driver.rotationPollInterval"
      ParamValue = "2m"
    }
    sync = {
      ParamName  = "secrets-store-csi-driver.syncSecret.enabled"
      ParamValue = "true"
    }
  }
}
